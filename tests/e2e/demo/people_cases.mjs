// Users and their devices: devices that come and go, topics, the state map, presence, and a device that does not read.

import { equal, holds } from '../lib/cases.mjs';
import { ALL } from './page.mjs';

/** More than fits into the buffers between a server and a page that stops reading, at 16 KB each. */
const BURST = 400;

export const people = ({ demo, page }) => ({
  devices_are_added_and_removed: async () => {
    await page.getByRole('button', { name: 'Add device for bob' }).click();
    await demo.connected('bob-laptop');
    equal(await demo.part('bob-laptop', 'transport').evaluate(node => node === document.activeElement), true, 'focus');
    const sent = await demo.send('bob', 'On both');
    for (const name of ['bob-laptop', 'bob-tablet']) await demo.inState(name, sent, 'new');
    await page.getByRole('button', { name: 'Remove bob’s laptop' }).click();
    equal(await demo.device('bob-laptop').count(), 0);
    await demo.part('bob-tablet', 'remove').waitFor({ state: 'hidden' });
  },

  more_connections_than_a_browser_opens_are_refused_in_words: async () => {
    await demo.transport('ada-laptop', 'sse');
    for (const user of ['ada', 'bob']) await page.getByRole('button', { name: `Add device for ${user}` }).click();
    await demo.connected('ada-tablet', 'bob-laptop');
    await demo.transport('ada-tablet', 'sse');
    await demo.part('bob-laptop', 'transport').selectOption('long_poll');
    await demo.notice('bob-laptop', 'keeps six connections');
    await demo.part('ada-tablet', 'remove').click();
    await demo.plugIn('bob-laptop');
    await demo.part('bob-laptop', 'remove').click();
    await demo.transport('ada-laptop', 'websocket');
  },

  members_of_a_topic_get_what_is_sent_to_it: async () => {
    const membership = demo.user('bob').getByRole('switch', { name: 'bob is a member of news' });
    const before = await demo.send('topic', 'Before bob joined');
    await toggle(page, membership);
    const sent = await demo.send('topic', 'To the topic');
    await demo.inState('bob-tablet', sent, 'new');
    holds((await demo.item('bob-tablet', sent).innerText()).includes('topic news'), 'the topic is told');
    await toggle(page, membership);
    const after = await demo.send('topic', 'After bob left');
    const last = await demo.send('everyone', 'After all of it');
    for (const name of ALL) await demo.inState(name, last, 'new');
    for (const id of [before, after]) equal(await demo.item('bob-tablet', id).count(), 0, 'at bob');
    equal(await demo.item('ada-laptop', sent).count(), 0, 'at ada');
  },

  the_state_map_is_told_to_the_devices: async () => {
    const badge = demo.user('ada').locator('[data-part="badge"]');
    const add = page.getByRole('button', { name: '+1 to the badge of ada' });
    await add.click();
    await badge.filter({ hasText: /^1$/ }).waitFor();
    await add.click();
    await badge.filter({ hasText: /^2$/ }).waitFor();
    await page.getByRole('button', { name: 'Clear the badge of ada' }).click();
    await badge.filter({ hasText: /^0$/ }).waitFor();
  },

  presence_follows_the_devices: async () => {
    const presence = demo.user('bob').locator('[data-part="presence"]');
    await presence.filter({ hasText: 'Online' }).waitFor();
    await demo.unplug('bob-tablet');
    await presence.filter({ hasText: 'Offline' }).waitFor();
    await demo.plugIn('bob-tablet');
    await presence.filter({ hasText: 'Online' }).waitFor();
  },

  who_stops_reading_harms_nobody_and_catches_up: async () => {
    await demo.part('ada-phone', 'pause').click();
    await demo.notice('ada-phone', 'Not reading');
    const [phone, laptop] = [await demo.unread('ada-phone'), await demo.unread('ada-laptop')];
    const data = 'x'.repeat(16 * 1024);
    await demo.publish(Array.from({ length: BURST }, () => ({ users: ['ada'], subject: 'Burst', data })));
    await demo.unreadReaches('ada-laptop', laptop + BURST);
    const sent = await demo.send('everyone', 'Past the slow one');
    await demo.inState('bob-tablet', sent, 'new');
    await demo.inState('ada-laptop', sent, 'new');
    equal(await demo.unread('ada-phone'), phone, 'unread while not reading');
    await demo.part('ada-phone', 'pause').click();
    await demo.unreadReaches('ada-phone', phone + BURST + 1);
    equal(await demo.unread('ada-phone'), phone + BURST + 1, 'each once');
    await demo.notice('ada-phone', `Caught up on ${BURST + 1} notifications`);
    holds((await demo.item('ada-phone', sent).innerText()).includes('read late'), 'it is marked');
  },

  a_websocket_cannot_be_left_unread_and_the_page_says_so: async () => {
    await demo.part('ada-laptop', 'pause').click();
    await demo.notice('ada-laptop', 'Choose SSE or long poll');
  },
});

/** Turns a switch, and waits for the server's word. */
async function toggle(page, membership) {
  const answered = page.waitForResponse(answer => answer.url().includes('/members/'));
  await membership.click({ force: true });
  equal((await answered).status(), 200, 'membership');
}
