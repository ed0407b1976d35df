// The story of one notification, as the server recorded it: accepted, delivered to whom over what on what evidence, read.

import { $, element, label, say, setIdle, isIdle } from './dom.js';
import { Problem, request, requestJson } from './api.js';
import { requestCode } from './code.js';
import { record } from './deeds.js';
import { happened, hear } from './happenings.js';
import { keys } from './keys.js';
import { TRANSPORTS, clock, duration, plural } from './words.js';

/** What settles by evidence is known up to a second late, and recorded up to another: so it is looked for a few times. */
const AGAIN_MS = 1200;
const TIMES = 3;

const ALWAYS_COUNTED = ['pending', 'delivered', 'read'];
const NO_RECORD = 'The server keeps no record of it: it was transient, or it is of an earlier run.';

const EVENTS = {
  accepted: 'Accepted and stored', scheduled: 'Scheduled', written: 'Written', delivered: 'Delivered', read: 'Read', withdrawn: 'Withdrawn',
  expired: 'Expired', cancelled: 'Cancelled', dead: 'Dead letter', redriven: 'Redriven',
};
const EVIDENCE = {
  pong: 'the client answered a ping sent after it', tcp: 'the client’s machine acknowledged its last byte',
  cursor: 'the client came back with a later cursor', client: 'the client said so',
};

let selected = null;
let timer = 0;
/** The device behind a session, where the page knows it. */
let deviceOf = () => undefined;

const pathOf = id => `/v1/notifications/${encodeURIComponent(id)}`;

function select(wanted) {
  if (wanted.id !== selected?.id) {
    say($('#timeline-says'), 'Looking it up…');
    $('#counts').replaceChildren();
    $('#story').replaceChildren();
  }
  clearTimeout(timer);
  selected = wanted;
  $('#timeline-title').textContent = wanted.subject ? `Timeline: ${wanted.subject}` : 'Timeline';
  $('#timeline-id').textContent = wanted.id;
  $('#timeline-back').hidden = !wanted.from;
  $('#timeline-refresh').disabled = Boolean(wanted.isTransient);
  $('#withdraw').disabled = Boolean(wanted.isTransient);
  setIdle($('#withdraw'), false);
  if (wanted.isTransient) say($('#timeline-says'), 'Nothing is recorded of a transient notification.');
  else refresh();
  refreshSoon(wanted.id);
}

/** By a person, from an item: the focus goes to the story, and can go back. */
function open(wanted) {
  select(wanted);
  record(`Timeline of “${wanted.subject ?? wanted.id}”`, requestCode({ path: `${pathOf(wanted.id)}/timeline`, who: 'key' }));
  $('#timeline-title').focus({ preventScroll: true });
  $('#timeline').scrollIntoView({ block: 'nearest' });
}

async function refresh() {
  const { id } = selected;
  const get = path => requestJson({ path, token: keys.api_key });
  try {
    const [summary, story] = await Promise.all([get(pathOf(id)), get(`${pathOf(id)}/timeline`)]);
    const states = summary.audience.kind === 'users' ? [] : await Promise.all(Object.keys(keys.users).map(async user =>
      ({ user, state: (await get(`${pathOf(id)}/timeline?user=${encodeURIComponent(user)}`)).state })));
    if (selected.id === id) show(summary, story.events, states);
  } catch (error) {
    if (selected.id === id) say($('#timeline-says'), error.status === 404 ? NO_RECORD : error.message, 'warn');
  }
}

function refreshSoon(id, times = TIMES) {
  if (id !== selected?.id || selected.isTransient || times === 0) return;
  clearTimeout(timer);
  timer = setTimeout(() => {
    refresh();
    refreshSoon(id, times - 1);
  }, AGAIN_MS);
}

/** `states`: of a wide audience's users. Their deliveries are kept without a time each, so they are no events. */
function show(summary, events, states) {
  say($('#timeline-says'), `For ${audienceText(summary.audience)}.`);
  const counts = Object.entries(summary.counts).filter(([state, n]) => n || ALWAYS_COUNTED.includes(state));
  $('#counts').replaceChildren(...counts.map(countNode));
  const began = Date.parse(events[0]?.time);
  const silent = states.filter(({ user, state }) => EVENTS[state] && !events.some(event => event.user === user));
  $('#story').replaceChildren(...events.map(event => eventNode(event, began)), ...silent.map(stateNode));
  happened('told', { id: summary.id, events });
}

const audienceText = ({ kind, count }) =>
  ({ users: plural(count ?? 0, 'user'), topics: 'the topic’s members', everyone: 'everyone' })[kind] ?? kind;

/** Of a wide audience, who has not come yet is not counted. */
function countNode([state, n]) {
  const value = element('dd', {}, n === null ? '–' : String(n));
  if (n === null) label(value, 'not counted for so wide an audience');
  return element('div', {}, element('dt', {}, state), value);
}

function eventNode(event, began) {
  const { user, transport, evidence, reason, session, time } = event;
  const device = session && deviceOf(session);
  const over = transport && `over ${TRANSPORTS[transport] ?? transport}`;
  const how = [device ?? user, over].filter(Boolean).join(' ');
  const why = EVIDENCE[evidence] ?? evidence ?? reason;
  const after = Date.parse(time) - began;
  const node = element('li', {},
    element('p', {}, element('strong', {}, EVENTS[event.event] ?? event.event), how && ` · ${how}`),
    element('p', { className: 'hint' },
      element('time', { dateTime: time }, clock(time, 3)), after > 0 ? ` · +${duration(after)}` : '', why ? ` · ${why}` : ''));
  node.dataset.event = event.event;
  return node;
}

function stateNode({ user, state }) {
  const node = element('li', {},
    element('p', {}, element('strong', {}, EVENTS[state]), ` · ${user}`),
    element('p', { className: 'hint' }, 'One entry serves everyone: the state is kept, without a time for each.'));
  node.dataset.event = state;
  return node;
}

async function withdraw(button) {
  if (isIdle(button)) return;
  const { id, subject } = selected;
  const wanted = { method: 'DELETE', path: pathOf(id), who: 'key' };
  record(`Withdraw “${subject ?? id}”`, requestCode(wanted));
  setIdle(button, true);
  try {
    const { cancelled } = await (await request({ ...wanted, token: keys.api_key })).json();
    say($('#timeline-says'), withdrawnText(cancelled), 'ok');
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say($('#timeline-says'), `Not withdrawn. ${error.message}`, 'bad');
    setIdle(button, false);
  }
  refreshSoon(id);
}

function withdrawnText(cancelled) {
  if (cancelled === null) return 'Withdrawn from all who had not read it.';
  if (cancelled === 0) return 'All had it already; it is taken off their screens.';
  return `Withdrawn before ${plural(cancelled, 'user')} had it; taken off the others’ screens.`;
}

export function start(findDevice) {
  deviceOf = findDevice;
  hear('sent', select);
  hear('select', open);
  hear('arrived', ({ item }) => refreshSoon(item.entry.id));
  hear('settled', ({ item }) => refreshSoon(item.entry.id));
  $('#timeline-back').onclick = () => selected.from.focus();
  $('#timeline-refresh').onclick = refresh;
  $('#withdraw').onclick = event => withdraw(event.currentTarget);
}
