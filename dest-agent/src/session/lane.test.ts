import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { BUDGET, until, within } from '../../test/wait.ts';
import type { FromLane } from '../lanes/messages.ts';
import { Lane } from './lane.ts';

const script = (text: string): URL => new URL(`data:text/javascript,${encodeURIComponent(text)}`);

function start(t: TestContext, text: string): { lane: Lane; heard: FromLane[]; crashes: Error[] } {
  const heard: FromLane[] = [];
  const crashes: Error[] = [];
  const { port1, port2 } = new MessageChannel();
  t.after(() => port2.close());
  const credentials = {
    tlsCa: undefined,
    tlsCert: undefined,
    tlsKey: undefined,
    serverName: undefined,
    allowPlaintext: false,
  };
  const buffer = new SharedArrayBuffer(8);
  const lane = new Lane(
    script(`import { parentPort } from 'node:worker_threads'; ${text}`),
    {
      sourceAddress: '127.0.0.1:1',
      credentials,
      counters: buffer,
      hint: buffer,
      peer: port1,
      traceRatio: 0,
      faults: { spinUs: 0, windowPages: 1 },
    },
    (message) => heard.push(message),
    (error) => crashes.push(error),
  );
  t.after(() => lane.terminate());
  return { lane, heard, crashes };
}

const ECHO = `parentPort.on('message', ({ type }) => parentPort.postMessage({ type }));`;

test(
  'who waits for a kind of message gets the next one of it, one message each, and everybody hears all',
  BUDGET,
  async (t) => {
    const { lane, heard } = start(t, `${ECHO} parentPort.postMessage({ type: 'started' });`);
    await within('started', lane.next('started'));
    const waits = [lane.next('whole'), lane.next('whole'), lane.next('attached')];
    parentOrder(lane, ['attached', 'whole', 'started', 'whole']);
    assert.deepEqual(
      (await within('all of them', Promise.all(waits))).map((message) => message.type),
      ['whole', 'whole', 'attached'],
    );
    await until('everything is heard', () => heard.length === 5);
  },
);

test('a lane that crashes is told once, and fails who waits for it and who asks later', BUDGET, async (t) => {
  const { lane, crashes } = start(t, `parentPort.once('message', () => { throw new Error('a bug of the lane'); });`);
  const waits = lane.next('source-detached');
  lane.post({ type: 'detach-source' });
  await assert.rejects(within('the crash', waits), /a bug of the lane/);
  await assert.rejects(within('the crash', lane.next('unregistered')), /a bug of the lane/);
  assert.equal(crashes.length, 1);
});

test('a lane that is ended lets go of who waits for it, and that is no crash', BUDGET, async (t) => {
  const { lane, crashes } = start(t, ECHO);
  const waits = lane.next('whole');
  await Promise.all([assert.rejects(within('the end', waits)), lane.terminate()]);
  assert.equal(crashes.length, 0);
});

/** The echo sends every type back; what it is asked for here is what lanes say, not what they are told. */
function parentOrder(lane: Lane, types: readonly FromLane['type'][]): void {
  for (const type of types) lane.post({ type } as unknown as Parameters<Lane['post']>[0]);
}
