// Numbers, times and names as people read them.

export const TRANSPORTS = { websocket: 'WebSocket', sse: 'SSE', long_poll: 'long poll' };

export const plural = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

export function clock(time, digits) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  return date.toLocaleTimeString('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', fractionalSecondDigits: digits });
}

/** 3 ms, 1.2 s, 4 min. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 3_600_000 ? `${Math.round(ms / 60_000)} min` : `${Math.round(ms / 3_600_000)} h`;
}

/** "a, b and c" */
export function list(names) {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** A notification's data on a few lines. */
export function dataText(data, most = 400) {
  const short = typeof data === 'string' ? data : JSON.stringify(data);
  const text = typeof data === 'string' || short.length <= 48 ? short : JSON.stringify(data, null, 2);
  return text.length > most ? `${text.slice(0, most)}… (${text.length.toLocaleString('en')} characters)` : text;
}
