// One user: presence, topics, the state map, and the devices.

import { $, label, part, say, setIdle, isIdle, stamp } from './dom.js';
import { request, requestJson } from './api.js';
import { announce } from './announce.js';
import { requestCode } from './code.js';
import { TOPICS } from './composer.js';
import { record } from './deeds.js';
import { Device } from './device.js';
import { hear } from './happenings.js';
import { keys } from './keys.js';
import { plural } from './words.js';

const KINDS = ['Laptop', 'Phone', 'Tablet'];
/** After a session began or ended, and now and then: who is gone counts as present for a moment yet. */
const PRESENCE_SOON_MS = 400;
const PRESENCE_EVERY_MS = 2000;
const BADGE = 'badge';

export class User {
  devices = [];
  #presenceTimer = 0;

  constructor(name, index) {
    Object.assign(this, { name, path: `/v1/users/${encodeURIComponent(name)}`, root: stamp('user') });
    this.root.dataset.user = name;
    this.root.dataset.hue = index;
    const title = $('h2', this.root);
    Object.assign(title, { textContent: name, id: `user-${name}` });
    this.root.setAttribute('aria-labelledby', title.id);
    $('.face', this.root).textContent = name[0];
    const add = part(this.root, 'add');
    label(add, `Add device for ${name}`);
    add.onclick = () => { if (!isIdle(add)) part(this.addDevice('websocket').root, 'transport').focus(); };
    this.#wireState();
    part(this.root, 'topics').append(...TOPICS.map(topic => this.#newSwitch(topic)));
    hear('phase', ({ device }) => { if (device.user === name) this.#lookForPresence(PRESENCE_SOON_MS); });
  }

  device(kind) {
    return this.devices.find(device => device.kind === kind);
  }

  addDevice(transport, kind = KINDS.find(each => !this.device(each))) {
    const device = new Device({
      user: this.name, kind, transport, token: keys.users[this.name],
      onState: state => this.#showState(state),
      onRemove: gone => this.#removed(gone),
    });
    this.devices.push(device);
    part(this.root, 'devices').append(device.root);
    part(device.root, 'remove').hidden = this.devices.length === 1;
    this.#showDevices();
    device.plugIn();
    return device;
  }

  #removed(gone) {
    this.devices = this.devices.filter(device => device !== gone);
    this.#showDevices();
    part(this.root, 'add').focus();
  }

  #showDevices() {
    setIdle(part(this.root, 'add'), this.devices.length === KINDS.length);
    this.devices.forEach(device => { part(device.root, 'remove').hidden = this.devices.length === 1; });
  }

  /** One request of the back-end, shown as code; what was refused is told. */
  async #act(title, wanted) {
    record(title, requestCode({ ...wanted, who: 'key' }));
    try {
      return await (await request({ ...wanted, token: keys.api_key })).json();
    } catch (error) {
      announce(`${title}: ${error.message}`);
      throw error;
    }
  }

  /* Topics */

  #newSwitch(topic) {
    const node = stamp('switch');
    const box = $('input', node);
    part(node, 'name').textContent = topic;
    box.name = `${this.name}-${topic}`;
    label(box, `${this.name} is a member of ${topic}`);
    box.onchange = () => this.join(topic, box.checked);
    return node;
  }

  #switch(topic) {
    return $(`input[name="${this.name}-${topic}"]`, this.root);
  }

  async join(topic, joins) {
    const box = this.#switch(topic);
    const path = `/v1/topics/${encodeURIComponent(topic)}/members/${encodeURIComponent(this.name)}`;
    const title = `${this.name} ${joins ? 'joins' : 'leaves'} ${topic}`;
    box.checked = joins;
    try {
      await this.#act(title, { method: joins ? 'PUT' : 'DELETE', path });
      announce(`${title}.`);
    } catch {
      box.checked = !joins;
    }
  }

  /* The state map */

  #wireState() {
    const on = (name, act, text) => {
      const button = part(this.root, name);
      label(button, text);
      button.onclick = act;
    };
    on('increment', () => this.increment(), `+1 to the badge of ${this.name}`);
    on('reset', () => this.clearBadge(), `Clear the badge of ${this.name}`);
  }

  increment() {
    return this.#change(`Badge of ${this.name} + 1`, { method: 'POST', path: `${this.path}/state/increment`, body: JSON.stringify({ [BADGE]: 1 }) });
  }

  clearBadge() {
    return this.#change(`Clear the badge of ${this.name}`, { method: 'PATCH', path: `${this.path}/state`, body: JSON.stringify({ [BADGE]: null }) });
  }

  /** What comes of it is shown when the sessions are told, not before. */
  #change(title, wanted) {
    return this.#act(title, wanted).catch(error => say(part(this.devices[0].root, 'notice'), `${title}: ${error.message}`, 'bad'));
  }

  #showState(state) {
    part(this.root, 'badge').textContent = state[BADGE] ?? '0';
  }

  /* Presence */

  #lookForPresence(ms) {
    clearTimeout(this.#presenceTimer);
    this.#presenceTimer = setTimeout(() => this.#showPresence(), ms);
  }

  async #showPresence() {
    const node = part(this.root, 'presence');
    try {
      const { online, sessions } = await requestJson({ path: `${this.path}/presence`, token: keys.api_key });
      node.textContent = online ? `Online, ${plural(sessions.length, 'session')}` : 'Offline';
      node.dataset.online = String(online);
    } catch {
      node.textContent = 'Presence unknown';
      node.dataset.online = 'unknown';
    }
    this.#lookForPresence(PRESENCE_EVERY_MS);
  }

  /** What the server knows already: a page that is loaded again finds its users as they are. */
  async load() {
    for (const topic of TOPICS) {
      const path = `/v1/topics/${encodeURIComponent(topic)}/members?limit=1000`;
      const { members } = await requestJson({ path, token: keys.api_key }).catch(() => ({ members: [] }));
      this.#switch(topic).checked = members.includes(this.name);
    }
  }
}
