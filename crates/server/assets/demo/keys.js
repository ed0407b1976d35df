// What the demo handed out: an API key, and a token for each user. They are good for this run of the demo only.

const PATH = '/demo/keys.json';

async function fetchKeys() {
  const answer = await fetch(PATH, { cache: 'no-store' });
  if (!answer.ok) throw new Error(`${PATH}: ${answer.status}`);
  return answer.json();
}

/** Null where this server has none to give. */
export const keys = await fetchKeys().catch(() => null);

/** Whether the server still knows them; a demo that was started anew has others. */
export async function areStale() {
  const now = await fetchKeys().catch(() => null);
  return now !== null && now.api_key !== keys.api_key;
}
