// What to see in two minutes. Each step can be shown by the page, or done by hand; either way it is ticked off by what
// then happens, not by the button.

import { $, element, setIdle, isIdle } from './dom.js';
import { publish, publishMany } from './composer.js';
import { hear } from './happenings.js';
import { plural } from './words.js';

/** Between two acts, so that one can follow. */
const PACE_MS = 900;
const MANY = 400;
const MANY_BYTES = 16 * 1024;

const pause = (ms = PACE_MS) => new Promise(done => setTimeout(done, ms));

/** Resolves with the fact of the next happening that fits; nothing waits for ever. */
function next(name, fits, ms = 15_000) {
  return new Promise((resolve, reject) => {
    const unhear = hear(name, fact => { if (fits(fact)) end(() => resolve(fact)); });
    const timer = setTimeout(() => end(() => reject(new Error('it did not come about in time'))), ms);
    const end = settle => { clearTimeout(timer); unhear(); settle(); };
  });
}

/** `show`'s users by name; `tell(text)` says what is being shown. `scene`: where it is to be seen. */
const STEPS = [
  {
    name: 'everyone', scene: '[data-device="ada-laptop"]', title: 'One for all', text: 'One notification, three devices, three transports.',
    async show({ tell }) {
      tell('Sending to everyone.');
      await publish({ subject: 'Welcome aboard' }, '{"coffee": true}');
    },
  },
  {
    name: 'read', scene: '[data-device="ada-phone"]', title: 'Read here, gone there', text: 'Reading on one device dismisses it on the others.',
    async show({ ada, tell }) {
      const [here, there] = [await ready(ada, 'Laptop'), await ready(ada, 'Phone')];
      tell('Sending to ada.');
      const came = Promise.all([here, there].map(device => next('arrived', fact => fact.device === device)));
      const id = await publish({ users: ['ada'], subject: 'Your table is ready' }, '{"table": 4}');
      await came;
      await pause();
      tell('Reading it on ada’s laptop: look at the phone.');
      here.read(id);
    },
  },
  {
    name: 'resume', scene: '[data-device="ada-phone"]', title: 'Unplug, replug', text: 'What was missed comes on return, by the cursor.',
    async show({ ada, tell }) {
      const phone = await ready(ada, 'Phone');
      tell('Unplugging ada’s phone.');
      phone.unplug();
      await pause();
      for (const n of [1, 2, 3]) {
        tell(`Sending while it is away: ${n} of 3.`);
        await publish({ users: ['ada'], subject: `While you were away ${n}` }, `{"n": ${n}}`);
        await pause(PACE_MS / 2);
      }
      tell('Plugging in again.');
      phone.plugIn();
    },
  },
  {
    name: 'slow', scene: '[data-device="ada-phone"]', title: 'A slow client', text: 'One device stops reading; nobody else notices.',
    async show({ ada, tell }) {
      const phone = await ready(ada, 'Phone');
      if (phone.transport === 'websocket') phone.useTransport('sse');
      tell('Ada’s phone stops reading its stream.');
      phone.stopReading();
      await pause();
      tell(`Sending ${MANY} of 16 KB to ada: the laptop takes them at once. Some 4 MB of the phone’s fit into buffers, the rest waits.`);
      const filler = ' all work and no play'.repeat(MANY_BYTES / 21);
      await publishMany(MANY, { users: ['ada'], subject: 'Burst' }, n => JSON.stringify(`Page ${n}:${filler}`));
      await pause(2 * PACE_MS);
      tell('One more, to everyone: bob and the laptop have it in milliseconds.');
      await publish({ subject: 'Still on time' }, '{"late": false}');
      await pause(2 * PACE_MS);
      tell('Reading on: it catches up.');
      const caughtUp = next('caughtUp', fact => fact.device === phone && fact.tally.found > 0);
      phone.readOn();
      const { tally } = await caughtUp;
      tell(`Ada’s phone caught up on ${plural(tally.found, 'notification')}; nothing was lost.`);
    },
  },
  {
    name: 'topic', scene: '[data-user="bob"]', title: 'A topic', text: 'Members get what is sent to it, from joining on.',
    async show({ bob, tell }) {
      tell('Bob joins news.');
      await bob.join('news', true);
      await pause();
      tell('Sending to the topic: it comes to bob, not to ada.');
      await publish({ topics: ['news'], subject: 'News: rain later' }, '"Take an umbrella."');
    },
  },
  {
    name: 'account', scene: '#timeline', title: 'Accounted for', text: 'Who got it, over what, and how we know.',
    async show({ ada, tell }) {
      const device = await ready(ada, 'Laptop');
      const came = next('arrived', fact => fact.device === device);
      const id = await publish({ users: ['ada', 'bob'], subject: 'Signed for' }, '{"parcel": 12}');
      await came;
      await pause();
      device.read(id);
      tell('The timeline tells who has it, over what, and on what evidence.');
    },
  },
];

/** A device of the kind, plugged in and reading. */
async function ready(user, kind) {
  const device = user.device(kind) ?? user.addDevice(kind === 'Phone' ? 'sse' : 'websocket', kind);
  device.readOn();
  if (device.session.phase === 'connected') return device;
  const connected = next('phase', fact => fact.device === device && fact.phase === 'connected');
  if (!device.session.isPlugged) device.plugIn();
  await connected;
  return device;
}

function tick(name) {
  const node = $(`#tour [data-step="${name}"]`);
  if (node.dataset.done) return;
  node.dataset.done = 'true';
  $('.tick', node).textContent = 'Done';
}

/** By what happens, a step is done. */
function watch() {
  const reached = new Map();
  hear('arrived', ({ device, item }) => {
    if (item.entry.topic) tick('topic');
    const devices = (reached.get(item.entry.id) ?? 0) + 1;
    reached.set(item.entry.id, devices);
    if (reached.size > 500) reached.delete(reached.keys().next().value);
    if (devices === 3) tick('everyone');
  });
  hear('settled', ({ item }) => { if (item.note === 'read elsewhere') tick('read'); });
  hear('caughtUp', ({ tally: { found, after } }) => {
    if (found && after === 'unplugged') tick('resume');
    if (found && after === 'not reading') tick('slow');
  });
  hear('told', ({ events }) => { if (events.some(event => event.event === 'read')) tick('account'); });
}

/** Where a screen is small, what happens may be out of sight. */
function bringIntoSight(selector) {
  const behavior = matchMedia('(prefers-reduced-motion: reduce)').matches ? 'instant' : 'smooth';
  $(selector)?.scrollIntoView({ block: 'nearest', behavior });
}

async function show(step, users, buttons) {
  const says = $('#tour-says');
  if (buttons.some(isIdle)) return;
  bringIntoSight(step.scene);
  buttons.forEach(button => setIdle(button, true));
  try {
    await step.show({ ...users, tell: text => { says.textContent = text; } });
  } catch (error) {
    says.textContent = `This could not be shown: ${error.message}`;
  }
  buttons.forEach(button => setIdle(button, false));
}

export function start(users) {
  const buttons = [];
  $('#tour').append(...STEPS.map(step => {
    const button = element('button', { type: 'button' }, 'Show me', element('span', { className: 'unseen' }, `: ${step.title}`));
    button.onclick = () => show(step, users, buttons);
    buttons.push(button);
    const node = element('li', {}, element('h3', {}, step.title), element('p', {}, step.text), button, element('span', { className: 'tick' }));
    node.dataset.step = step.name;
    return node;
  }));
  watch();
}
