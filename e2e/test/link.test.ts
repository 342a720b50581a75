/** Two hosts as network namespaces: the whole way through the command line, over every way that pages can go, and a cable that is pulled. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { makeAuthority } from '@pagewake/agent-kit/testing';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../lib/agents.ts';
import { makeHosts, type Hosts } from '../lib/hosts.ts';
import { temporaryFolder } from '../lib/migration.ts';
import { Program } from '../lib/processes.ts';
import { filled, startVmm } from '../lib/vmm.ts';

const probe = makeHosts();
probe.close();
const skip = probe.kind === 'loopback' ? probe.reason : false;
const noFirewall = spawnSync('iptables', ['--version']).status === 0 ? undefined : 'the program iptables is missing';
const LANE_PORTS = [7703, 7704] as const;
const DETOUR = 'over gRPC, which is slower';

/** What is different from plaintext over the ports of the lanes. */
interface Way {
  readonly source?: readonly string[];
  readonly destination?: readonly string[];
  readonly command?: readonly string[];
  readonly tls?: boolean;
  prepare?(hosts: Hosts): void;
  /** The lanes that cannot reach their port and say so. */
  readonly detours?: number;
}

const plain = (): Way => ({});

const overGrpc = (): Way => ({ source: ['--lanes', 'grpc'] });

const firewalled = (): Way => ({
  source: ['--fault-port', String(LANE_PORTS[0]), '--bulk-port', String(LANE_PORTS[1])],
  prepare: (hosts) => hosts.dropPorts(LANE_PORTS),
  detours: LANE_PORTS.length,
});

const secured =
  (mutual: boolean, more: readonly string[] = []) =>
  (t: TestContext, hosts: Hosts): Way => {
    const authority = makeAuthority(t);
    const files = (name: string): readonly [string, string] => {
      const { tlsCert, tlsKey } = authority.issue(name);
      return [tlsCert, tlsKey];
    };
    const serve = (name: string): readonly string[] => {
      const [cert, key] = files(name);
      return ['--tls-cert', cert, '--tls-key', key, ...(mutual ? ['--tls-ca', authority.ca] : [])];
    };
    const client = (prefix: string, name: string): readonly string[] => {
      const [cert, key] = files(name);
      return [`${prefix}-ca`, authority.ca, ...(mutual ? [`${prefix}-cert`, cert, `${prefix}-key`, key] : [])];
    };
    return {
      source: [...serve(hosts.source.address), ...more],
      destination: [...serve(hosts.destination.address), ...client('--source-tls', 'destination')],
      command: client('--tls', 'operator'),
      tls: true,
    };
  };

type Row = readonly [string, (t: TestContext, hosts: Hosts) => Way, (string | undefined)?];

const PLAIN: Row = ['', plain];
const ONE_PORT: Row = [', everything over gRPC on one port', overGrpc];
const MUTUAL: Row = [', all of it over mTLS', secured(true)];
const WAYS: readonly Row[] = [
  PLAIN,
  ONE_PORT,
  [', the ports of the lanes behind a firewall', firewalled, noFirewall],
  [', all of it over TLS', secured(false)],
  [', over mTLS on one port', secured(true, ['--lanes', 'grpc'])],
];
/** A cut takes up to twenty seconds to be noticed, so not every way is cut: one of each kind of connection, and one that is secured. */
const CUT: readonly Row[] = [PLAIN, ONE_PORT, MUTUAL];

/** One migration between two hosts of its own; with `cut` the cable is out for as long as nobody has noticed. */
async function moves(t: TestContext, way: (t: TestContext, hosts: Hosts) => Way, cut: boolean): Promise<void> {
  const hosts = makeHosts();
  t.after(() => hosts.close());
  const { source: sourceFlags = [], destination: destinationFlags = [], tls = false, ...rest } = way(t, hosts);
  rest.prepare?.(hosts);
  // Memory takes seconds, so that there is a middle, however long this process waits for a core.
  if (cut) hosts.limitLink(300);
  const folder = temporaryFolder(t);
  const source = await startSourceAgent(hosts.source, { flags: sourceFlags, tls });
  t.after(() => source.program.stop());
  const toDestination = { flags: destinationFlags, tls };
  const destination = await startDestAgent(hosts.destination, join(folder, 'vmm'), toDestination);
  t.after(() => destination.program.stop());
  const sizes = ['--quiet-heartbeats', '--ram', '128M', '--workload', '64M'];
  const from = await startVmm('source', hosts.source, folder, sizes);
  t.after(() => from.program.stop());
  await filled(from);
  const to = await startVmm('destination', hosts.destination, folder, ['--quiet-heartbeats']);
  t.after(() => to.program.stop());

  const security = rest.command ?? ['--insecure-plaintext'];
  const command = [process.execPath, PAGEWAKE, 'migrate', '--json', ...security];
  const vmms = ['--source-vmm', `unix:${from.controlPath}`, '--destination-vmm', `unix:${to.controlPath}`];
  // On the destination's host: its agent stays reachable when the cable is pulled.
  const cli = new Program('pagewake migrate', hosts.destination, [
    ...command,
    ...['--source', source.address, '--destination', destination.address],
    ...vmms,
  ]);
  t.after(() => cli.stop());
  if (cut) {
    await cli.waitFor(
      'the guest to run on the destination',
      (line) => line['type'] === 'phase' && line['phase'] === 'filling',
    );
    hosts.setLink(false);
    // Nothing tells the destination that the cable is out: it notices by signs of life.
    await cli.waitFor('the loss to be seen', (line) => line['type'] === 'interrupted', 60_000);
    hosts.setLink(true);
  }
  assert.equal(await cli.exited, 0, cli.stderr);
  const verified = await to.control.send('verify');
  assert.equal(verified['wrong'], 0);
  assert.equal(verified['pages'], (128 << 20) / 4096);
  const detours = destination.program.lines.filter((line) => String(line['msg']).includes(DETOUR));
  assert.equal(detours.length, rest.detours ?? 0, JSON.stringify(detours));
}

for (const [name, way, lacking] of WAYS)
  test(`a guest moves between two hosts through the command line${name}`, { skip: lacking ?? skip }, (t) =>
    moves(t, way, false),
  );

// Beside each other: most of it is waiting for the loss to be seen.
test(
  'a link that is cut in the middle and comes back: faults wait, the migration goes on, no page is wrong',
  { skip, concurrency: CUT.length },
  async (t) => {
    await Promise.all(CUT.map(([name, way]) => t.test(`as it is by default${name}`, (t) => moves(t, way, true))));
  },
);
