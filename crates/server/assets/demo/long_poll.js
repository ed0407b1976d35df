// Receives by long polling: the next poll's cursor is what settles the answer before it.

import { parse, request, withQuery } from './api.js';

const PATH = '/v1/inbox';
const WAIT_S = 25;
/** An answer may come so much later than it was asked to; then the connection counts as lost. */
const GRACE_MS = 20_000;
/** A server that drains answers empty at once; asking again without a pause would be a storm. */
const PAUSE_MS = 1000;

/** Polls until a poll fails, which it throws, or the link is aborted. */
export async function longPoll(link) {
  // The first polls do not wait: an empty answer then says that nothing is left to catch up on.
  let wait = 0;
  for (let isFirst = true; !link.signal.aborted; isFirst = false) {
    await link.mayRead();
    const asked = performance.now();
    const page = await poll(link, wait);
    await link.mayRead();
    if (isFirst) link.opened();
    const found = take(link, page);
    if (!found && wait === 0) link.caughtUp();
    if (!found && wait > 0 && performance.now() - asked < PAUSE_MS) await new Promise(done => setTimeout(done, PAUSE_MS));
    wait = link.isCatchingUp ? 0 : WAIT_S;
  }
  return {};
}

async function poll(link, wait) {
  const path = withQuery(PATH, { wait, ...link.query });
  const signal = AbortSignal.any([link.signal, AbortSignal.timeout(wait * 1000 + GRACE_MS)]);
  link.wire('→', `GET ${path}`);
  const text = await (await request({ path, token: link.token, signal })).text();
  link.wire('←', text);
  return parse(text);
}

/** Tells what a poll brought in the order that a stream would; how much it was. */
function take(link, { notifications, events = [], cursor, gap }) {
  if (gap) link.frame({ type: 'gap' });
  for (const entry of notifications) link.frame({ ...entry, type: 'notification' });
  for (const event of events) link.frame(event);
  link.frame({ type: 'cursor', cursor });
  // The state is told at each beginning, so it is nothing that was missed.
  return notifications.length + events.filter(event => event.type !== 'state').length;
}
