// Puts the page together. Each part is a module of its own; the client itself is in session.js and the transports.

import { $ } from './dom.js';
import * as composer from './composer.js';
import * as deeds from './deeds.js';
import { hear } from './happenings.js';
import { areStale, keys } from './keys.js';
import * as timeline from './timeline.js';
import * as tour from './tour.js';
import { User } from './user.js';

const MOST_SESSIONS = 200;

/** What everything is held up by, if anything: said once, above the page. */
function banner(text, mayReload = false) {
  const node = $('#banner');
  if (node.hidden === !text && $('p', node).textContent === text) return;
  node.hidden = !text;
  $('p', node).textContent = text;
  const button = $('button', node);
  button.hidden = !mayReload;
  button.onclick = () => location.reload();
}

async function judgeConnections({ phase, detail }) {
  if (phase === 'connected') banner('');
  if (phase === 'waiting' && detail.isUnreachable) banner('The server cannot be reached. The devices try again by themselves.');
  if (phase === 'stopped' && detail.status === 401) {
    banner(await areStale()
      ? 'The demo was started anew: its users, keys and inboxes are new. Reload the page to meet them.'
      : 'The server does not take this page’s tokens any more; they are good for a day. Start the demo again, then reload.', true);
  }
}

/** Which device a session is, or was. A transport that tells its client no session is not among them. */
function sessionNames() {
  const names = new Map();
  hear('phase', ({ device }) => {
    if (device.session.id) names.set(device.session.id, device.name);
    if (names.size > MOST_SESSIONS) names.delete(names.keys().next().value);
  });
  return session => names.get(session);
}

function start() {
  if (!keys) return banner('This page has no keys: open the address that “postrider demo” printed.');
  const users = Object.fromEntries(Object.keys(keys.users).map((name, index) => [name, new User(name, index)]));
  hear('phase', judgeConnections);
  deeds.start();
  composer.start();
  timeline.start(sessionNames());
  tour.start(users);
  $('#users').append(...Object.values(users).map(user => user.root));
  Object.values(users).forEach(user => user.load());
  users.ada.addDevice('websocket', 'Laptop');
  users.ada.addDevice('sse', 'Phone');
  users.bob.addDevice('long_poll', 'Tablet');
  return undefined;
}

start();
