// The demo page as a person uses it: one to all, read here and dismissed there, unplugged and caught up.
// Leaves screenshots in the artifacts' folder, at a desk's and a phone's width, light and dark.

import { artifact, launch, SHOWN_MS } from './lib/browser.mjs';
import { equal, holds, run } from './lib/cases.mjs';
import { Node } from './lib/node.mjs';

const node = await Node.start('demo');
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1440, height: 1000 } });
const page = await context.newPage();
page.setDefaultTimeout(SHOWN_MS);
const faults = [];
page.on('pageerror', error => faults.push(error.message));
page.on('console', entry => { if (entry.type() === 'error') faults.push(entry.text()); });
await page.goto(node.demo.page);

const panel = name => page.getByTestId(`panel-${name}`);
const item = (name, id) => panel(name).locator(`[data-testid="notification"][data-id="${id}"]`);
const connected = name => panel(name).locator('[data-testid="status"][data-status="connected"]').waitFor();

/** Sends by the composer; the id that the page then shows. */
async function send(to, subject, data = '{"order": 7}') {
  const before = await page.getByTestId('sent-id').textContent();
  await page.getByTestId('to').selectOption(to);
  await page.getByTestId('subject').fill(subject);
  await page.getByTestId('data').fill(data);
  await page.getByTestId('send').click();
  await page.waitForFunction(before => {
    const shown = document.querySelector('[data-testid="sent-id"]').textContent;
    return shown && shown !== before;
  }, before);
  return (await page.getByTestId('sent-id').textContent()).trim();
}

async function inState(name, id, state) {
  const found = item(name, id);
  try {
    await found.and(page.locator(`[data-state="${state}"]`)).waitFor();
  } catch {
    const shown = await found.count() ? await found.getAttribute('data-state') : 'not there';
    throw new Error(`${id} in panel ${name} is ${shown} instead of ${state}`);
  }
}

async function transport(name, value) {
  await panel(name).getByTestId('transport').selectOption(value);
  await connected(name);
}

/** Opens another device and waits until it is connected; its panel's name. */
async function addDevice(who) {
  const devices = page.locator(`[data-testid^="panel-${who}-"]`);
  const before = await devices.count();
  await page.getByTestId(`add-device-${who}`).click();
  await devices.nth(before).waitFor();
  const name = (await devices.nth(before).getAttribute('data-testid')).replace('panel-', '');
  await connected(name);
  return name;
}

const cases = {
  the_page_connects_both_users: async () => {
    await connected('ada-0');
    await connected('bob-0');
  },

  one_user_gets_what_is_for_one: async () => {
    const sent = await send('ada', 'Only for ada');
    await inState('ada-0', sent, 'new');
    const both = await send('both', 'After it, for both');
    // It came after: had bob been sent the first, it would be there by now.
    await inState('bob-0', both, 'new');
    equal(await item('bob-0', sent).count(), 0, 'at bob');
  },

  everyone_gets_what_is_for_all_less_the_excluded: async () => {
    const all = await send('everyone', 'To everyone');
    await inState('ada-0', all, 'new');
    await inState('bob-0', all, 'new');
    const rest = await send('not-ada', 'To everyone but ada');
    await inState('bob-0', rest, 'new');
    const after = await send('ada', 'After it, for ada');
    await inState('ada-0', after, 'new');
    equal(await item('ada-0', rest).count(), 0, 'at ada');
  },

  text_is_shown_as_text: async () => {
    const sent = await send('ada', '<b>bold</b>', '"<img src=x onerror=alert(1)>"');
    await inState('ada-0', sent, 'new');
    const shown = await item('ada-0', sent).innerText();
    holds(shown.includes('<b>bold</b>') && shown.includes('<img src=x onerror=alert(1)>'), `shown: ${shown}`);
  },

  read_here_is_dismissed_there: async () => {
    const other = await addDevice('ada');
    const sent = await send('ada', 'Read me');
    await inState('ada-0', sent, 'new');
    await inState(other, sent, 'new');
    await item('ada-0', sent).getByTestId('read').click();
    await inState('ada-0', sent, 'read');
    await inState(other, sent, 'read');
    await screenshots('many-devices');
    await panel(other).getByTestId('close').click();
  },

  withdrawn_is_shown_as_withdrawn: async () => {
    const sent = await send('both', 'Take me back');
    await inState('ada-0', sent, 'new');
    await inState('bob-0', sent, 'new');
    await page.getByTestId('withdraw').click();
    await inState('ada-0', sent, 'withdrawn');
    await inState('bob-0', sent, 'withdrawn');
  },

  the_timeline_tells_its_story: async () => {
    const sent = await send('ada', 'Tell my story');
    await inState('ada-0', sent, 'new');
    await item('ada-0', sent).getByTestId('read').click();
    await inState('ada-0', sent, 'read');
    await page.getByTestId('sent-timeline').click();
    for (const event of ['accepted', 'read']) {
      await page.getByTestId('timeline').locator(`[data-event="${event}"]`).first().waitFor();
    }
  },

  the_page_reports_no_fault: async () => equal(faults, []),

  the_nodes_own_page_may_use_every_transport: async () => {
    // From the page that the node serves, under its content security policy.
    const opened = await page.evaluate(async credential => {
      const headers = { Authorization: `Bearer ${credential}` };
      const ticket = async () => (await (await fetch('/v1/tickets', { method: 'POST', headers })).json()).ticket;
      const source = new EventSource(`/v1/inbox/stream?ack=none&ticket=${await ticket()}`);
      await new Promise((resolve, reject) => { source.onopen = resolve; source.onerror = reject; });
      source.close();
      const socket = new WebSocket(`ws://${location.host}/v1/inbox/ws?ack=none&ticket=${await ticket()}`, 'postrider.v1');
      await new Promise((resolve, reject) => { socket.onmessage = resolve; socket.onerror = reject; });
      socket.close();
      return socket.protocol;
    }, node.demo.users.ada);
    equal(opened, 'postrider.v1');
  },
};

for (const kind of ['websocket', 'sse', 'long_poll']) {
  cases[`unplugged_and_plugged_in_again_catches_up_by_${kind}`] = async () => {
    await transport('ada-0', kind);
    const before = await send('ada', 'Before');
    await inState('ada-0', before, 'new');
    await panel('ada-0').getByTestId('unplug').click();
    const missed = [await send('ada', 'Missed one'), await send('both', 'Missed two')];
    await inState('bob-0', missed[1], 'new');
    equal(await item('ada-0', missed[1]).count(), 0, 'while unplugged');
    await panel('ada-0').getByTestId('unplug').click();
    await connected('ada-0');
    for (const id of missed) await inState('ada-0', id, 'new');
    const ids = await panel('ada-0').getByTestId('notification').evaluateAll(nodes => nodes.map(each => each.dataset.id));
    equal(ids.length, new Set(ids).size, 'each is shown once');
  };
}

cases.a_cursor_goes_from_transport_to_transport = async () => {
  for (const kind of ['websocket', 'sse', 'long_poll', 'websocket']) {
    await panel('ada-0').getByTestId('unplug').click();
    const missed = await send('ada', `Missed before ${kind}`);
    await panel('ada-0').getByTestId('transport').selectOption(kind);
    await panel('ada-0').getByTestId('unplug').click();
    await connected('ada-0');
    await inState('ada-0', missed, 'new');
  }
};

cases.it_fits_a_desk_and_a_phone = async () => {
  await screenshots('demo');
  for (const width of [1440, 768, 360]) {
    await page.setViewportSize({ width, height: 900 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    equal(wide, 0, `pixels too wide at ${width}`);
  }
  await page.setViewportSize({ width: 1440, height: 1000 });
};

async function screenshots(name) {
  const sizes = { desk: { width: 1440, height: 1000 }, phone: { width: 390, height: 844 } };
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const [size, viewport] of Object.entries(sizes)) {
      await page.setViewportSize(viewport);
      await page.screenshot({ path: artifact(`${name}-${size}-${colorScheme}.png`), fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: null });
  await page.setViewportSize(sizes.desk);
}

const status = await run(cases, name => page.screenshot({ path: artifact(`failed-demo-${name}.png`), fullPage: true }));
if (status) console.log(`     the page's faults: ${JSON.stringify(faults)}\n     the node's log ends: ${await node.log()}`);
await browser.close();
await node.remove();
process.exit(status);
