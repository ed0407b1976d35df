// Says to screen readers what came. Politely, and a burst in one sentence: what comes within a moment is gathered.

import { $ } from './dom.js';
import { list, plural } from './words.js';

const GATHER_MS = 700;
const MOST_NAMED = 3;

let sentences = [];
let arrivals = new Map();
let timer = 0;

export function announce(sentence) {
  sentences.push(sentence);
  wait();
}

/** A notification came to a device; to several, it is one sentence. */
export function announceArrival(device, { id, subject }) {
  const arrival = arrivals.get(id) ?? { subject: subject ?? 'A notification', devices: [] };
  arrival.devices.push(device);
  arrivals.set(id, arrival);
  wait();
}

function wait() {
  // Not put off again and again: under a steady stream there is a sentence every moment.
  timer ||= setTimeout(speak, GATHER_MS);
}

function speak() {
  $('#announcer').textContent = [...sentences.slice(-MOST_NAMED), ...arrivalSentences()].join(' ');
  [sentences, arrivals, timer] = [[], new Map(), 0];
}

function arrivalSentences() {
  const all = [...arrivals.values()];
  if (all.length <= MOST_NAMED) return all.map(({ subject, devices }) => `${subject} came to ${list(devices)}.`);
  const devices = new Set(all.flatMap(arrival => arrival.devices));
  return [`${plural(all.length, 'notification')} came to ${list([...devices])}.`];
}
