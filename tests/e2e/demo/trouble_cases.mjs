// What goes wrong is said in words. These come last: they leave errors in the page's log, as they should.

import { ALL } from './page.mjs';

export const trouble = ({ node, demo, page }) => ({
  a_token_that_has_expired_is_said_in_words: async () => {
    const problem = { type: 'about:blank', title: 'Token expired', status: 401, code: 'token_expired', detail: 'The user token is not valid at this time.' };
    await page.route('**/v1/inbox?**', route => route.fulfill({ status: 401, contentType: 'application/problem+json', body: JSON.stringify(problem) }));
    await demo.unplug('bob-tablet');
    await demo.part('bob-tablet', 'plug').click();
    await demo.phase('bob-tablet', 'stopped');
    await demo.notice('bob-tablet', 'not valid at this time');
    await demo.alert('tokens').waitFor();
    await page.unroute('**/v1/inbox?**');
    await demo.part('bob-tablet', 'plug').click();
    await demo.connected('bob-tablet');
    await page.locator('#banner').waitFor({ state: 'hidden' });
  },

  a_server_that_is_gone_is_said_in_words_and_so_is_another_one: async () => {
    await node.kill();
    await demo.alert('cannot be reached').waitFor();
    await demo.phase('bob-tablet', 'waiting');
    await demo.everyDress(name => demo.screenshot(`gone-${name}`, false));
    await node.start();
    await demo.alert('started anew').waitFor();
    await demo.alert('').getByRole('button', { name: 'Reload' }).click();
    await demo.connected(...ALL);
    const sent = await demo.send('everyone', 'Welcome back');
    for (const name of ALL) await demo.inState(name, sent, 'new');
  },
});
