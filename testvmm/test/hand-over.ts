/** A guest that was stopped on a source and loaded by a destination whose agent serves nothing; a helper of the tests in this folder only. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { listenAsAgent, temporaryFolder, Vmm, type Peer, type Reply } from './vmm.ts';

const SOURCE = [
  '--ram',
  '16M',
  '--workload',
  '8M',
  '--io-pages',
  '64',
  '--vcpus',
  '2',
  '--regions',
  '2',
  '--vm',
  'blue',
];

export interface Handover {
  readonly vmm: Vmm;
  readonly agent: Peer;
  readonly loading: Promise<Reply>;
  readonly handshake: string;
}

/** A source paused and saved, a destination that has handed its empty memory to a peer that serves nothing. */
export async function handOver(
  t: TestContext,
  sourceArgs: readonly string[],
  args: readonly string[],
): Promise<Handover | null> {
  const folder = await temporaryFolder(t);
  const source = await Vmm.start(t, folder, 'source', [...SOURCE, ...sourceArgs]);
  if (source === null) return null;
  await source.untilFilled();
  await source.ok('pause');
  const state = join(folder, 'vm.state');
  await source.ok(`save ${state}`);
  await source.ok('quit');
  const vmm = await Vmm.start(t, folder, 'destination', [...sourceArgs.filter((a) => a === '--no-kvm'), ...args]);
  if (vmm === null) return null;
  const agent = await listenAsAgent(t, folder);
  const loading = vmm.command(`load ${state} ${agent.path}`);
  const handshake = await Promise.race([agent.handshake, loading.then((reply) => reply.error ?? agent.handshake)]);
  if (/^userfaultfd|^--stage2 userfault: this kernel/.test(handshake)) {
    t.skip(handshake);
    return null;
  }
  return { vmm, agent, loading, handshake };
}
