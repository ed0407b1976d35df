// Receives by SSE, with fetch() in place of EventSource: a fetch may send a header, may be left unread, and sees the
// bare `id:` blocks that carry the cursor, which fire no event in an EventSource.

import { parse, request, withQuery } from './api.js';

const PATH = '/v1/inbox/stream';
/** The server says something every 15 s. After so long a silence the connection counts as lost. */
const SILENCE_MS = 45_000;

/** Runs one connection; resolves with how it ended. */
export async function sse(link) {
  const path = withQuery(PATH, link.query);
  link.wire('→', `GET ${path}`);
  const { body } = await request({ path, token: link.token, signal: link.signal });
  link.opened();
  const outcome = {};
  const take = blocks(block => {
    link.wire('←', block.text);
    if (block.retry !== undefined) outcome.retryMs = block.retry;
    if (block.data) link.frame(frame(block));
    if (block.id !== undefined) link.frame({ type: 'cursor', cursor: block.id });
  });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    await link.mayRead();
    const { value, done } = await within(SILENCE_MS, reader);
    // While it was waited for, reading may have been stopped.
    await link.mayRead();
    if (done) return outcome;
    take(value);
  }
}

async function within(ms, reader) {
  const watchdog = setTimeout(() => reader.cancel(), ms);
  try {
    return await reader.read();
  } finally {
    clearTimeout(watchdog);
  }
}

/** A block in its WebSocket form. */
function frame({ event, data }) {
  const told = parse(data);
  return event === 'state' ? { type: 'state', state: told } : { ...told, type: event };
}

/** The event stream format of the HTML standard: takes text in any pieces, tells whole blocks. */
export function blocks(tell) {
  let rest = '';
  let lines = [];
  return chunk => {
    // A CR at the end may be half of a CRLF, so it waits for the next piece.
    const parts = (rest + chunk).split(/\r\n|\n|\r(?!$)/);
    rest = parts.pop();
    for (const line of parts) {
      if (line !== '') lines.push(line);
      else if (lines.length) {
        tell(block(lines));
        lines = [];
      }
    }
  };
}

function block(lines) {
  const found = { text: lines.join('\n'), event: 'message', data: '', id: undefined, retry: undefined };
  const data = [];
  for (const line of lines) {
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (name === 'event') found.event = value;
    if (name === 'data') data.push(value);
    if (name === 'id') found.id = value;
    if (name === 'retry' && /^\d+$/.test(value)) found.retry = Number(value);
  }
  return { ...found, data: data.join('\n') };
}
