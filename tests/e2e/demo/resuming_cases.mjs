// Unplugged and plugged in again: what was missed comes, once, marked, over the same transport or another.

import { equal, holds } from '../lib/cases.mjs';

const KINDS = ['websocket', 'sse', 'long_poll'];

export const resuming = scene => ({
  ...Object.fromEntries(KINDS.map(kind => [`unplugged_and_plugged_in_again_resumes_by_${kind}`, () => resume(scene, kind)])),

  what_was_read_while_unplugged_is_told_on_return: async () => {
    const { demo } = scene;
    const sent = await demo.send('ada', 'Read while away');
    for (const name of ['ada-laptop', 'ada-phone']) await demo.inState(name, sent, 'new');
    await demo.unplug('ada-laptop');
    await demo.item('ada-laptop', sent).locator('[data-part="read"]').click();
    await demo.inState('ada-laptop', sent, 'read');
    await demo.plugIn('ada-laptop');
    await demo.inState('ada-phone', sent, 'read');
  },

  a_cursor_goes_from_transport_to_transport: async () => {
    const { demo } = scene;
    for (const kind of ['websocket', 'sse', 'long_poll', 'sse']) {
      await demo.unplug('ada-phone');
      const missed = await demo.send('ada', `Missed before ${kind}`);
      await demo.part('ada-phone', 'transport').selectOption(kind);
      await demo.plugIn('ada-phone');
      await demo.inState('ada-phone', missed, 'new');
    }
  },
});

async function resume({ demo }, kind) {
  await demo.transport('ada-phone', kind);
  const before = await demo.send('ada', 'Before');
  await demo.inState('ada-phone', before, 'new');
  await demo.unplug('ada-phone');
  const missed = [await demo.send('ada', 'Missed one'), await demo.send('everyone', 'Missed two')];
  await demo.inState('bob-tablet', missed[1], 'new');
  equal(await demo.item('ada-phone', missed[1]).count(), 0, 'while unplugged');
  await demo.plugIn('ada-phone');
  for (const id of missed) {
    await demo.inState('ada-phone', id, 'new');
    holds((await demo.item('ada-phone', id).innerText()).includes('missed'), 'it is marked');
  }
  await demo.notice('ada-phone', 'Resumed by the cursor: 2 notifications missed');
  const ids = await demo.device('ada-phone').locator('.item').evaluateAll(nodes => nodes.map(each => each.dataset.id));
  equal(ids.length, new Set(ids).size, 'each is shown once');
}
