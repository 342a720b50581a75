/**
 * `npm run soak`: migrations of random guests, one after the other, between agents that stay up; each is verified page by page. Ends at the
 * first that is not right, and prints what makes it again. Not part of `npm test`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { migrate, summaryOf, TestVmmDriver, type MigrationSummary } from '@pagewake/orchestrator';
import { startSourceAgent, type Agent } from '../lib/agents.ts';
import { makeHosts } from '../lib/hosts.ts';
import { whyNoKvm } from '../lib/machine.ts';
import { MortalDest } from '../lib/restart.ts';
import { filled, startVmm, type Vmm } from '../lib/vmm.ts';

interface SoakOptions {
  readonly runs: number;
  readonly seed: number;
  /** Kills the destination agent at random moments of every migration. */
  readonly killDest: boolean;
}

const HOST = makeHosts('loopback').source;
const noKvm = whyNoKvm() !== undefined;

/** Small numbers that a seed makes again (mulberry32). */
function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % below;
  };
}

interface Guest {
  readonly source: readonly string[];
  readonly destination: readonly string[];
}

function guestOf(seed: number, killDest: boolean): Guest {
  const random = randomOf(seed);
  const pick = <T>(...items: readonly T[]): T => items[random(items.length)] as T;
  const memory = pick('memfd', 'memfd', 'anon');
  // Anonymous memory has no minor faults.
  const modes = memory === 'memfd' ? pick('missing', 'missing', 'missing,minor') : 'missing';
  const balloon = random(3) === 0;
  const exits = !noKvm && memory === 'memfd' && !balloon && random(4) === 0;
  // Firecracker hands over once, so its guest does not outlive the agent.
  const firecracker = !exits && random(4) === 0 && !killDest;
  const source = [
    ...['--ram', '96M', '--workload', '48M', '--seed', String(seed), '--memory', memory],
    ...['--vcpus', pick('1', '2', '4'), '--regions', pick('1', '1', '2', '3')],
    ...['--pattern', pick('random', 'text', 'zero-heavy'), '--vcpu-rate', pick('0', '5000', '50000')],
    ...['--zero-fill', pick('0', '4M'), ...(balloon ? ['--balloon-area', '8M'] : [])],
  ];
  const destination = [
    ...['--memory', memory],
    ...(firecracker ? ['--handshake', 'firecracker'] : ['--register', modes]),
    ...(killDest ? ['--handover', 'keep'] : []),
    ...(exits ? ['--stage2', 'exit'] : []),
    ...(balloon ? ['--balloon', pick('200', '1500')] : []),
  ];
  return { source, destination };
}

/** Until it is over the agent dies again and again, at moments that a seed makes again, as far as a seed can. */
async function killWhile(
  result: Promise<unknown>,
  vmm: Vmm,
  dest: MortalDest,
  random: (below: number) => number,
): Promise<void> {
  let over = false;
  const end = (): void => void (over = true);
  result.then(end, end);
  // Before the guest runs there its migration is simply called off.
  await Promise.race([vmm.program.waitFor('the guest to run', (line) => line['event'] === 'resumed'), result]);
  for (let death = 0; death < 5; death++) {
    await sleep(random(400));
    if (over) return;
    await dest.kill();
    await dest.startAgain();
  }
}

async function once(
  folder: string,
  agents: { source: Agent; destination: MortalDest },
  guest: Guest,
  killAtRandom?: (below: number) => number,
): Promise<MigrationSummary> {
  const from = await startVmm('source', HOST, folder, ['--quiet-heartbeats', ...guest.source]);
  try {
    await filled(from);
    const to = await startVmm('destination', HOST, folder, ['--quiet-heartbeats', ...guest.destination]);
    try {
      const { result } = migrate({
        driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
        source: { address: agents.source.address },
        destination: { address: agents.destination.address },
      });
      const death = killAtRandom ? killWhile(result, to, agents.destination, killAtRandom) : Promise.resolve();
      await Promise.allSettled([result, death]);
      const { migration } = await result;
      const verified = await to.control.send('verify');
      const stats = await to.control.send('stats');
      if (verified['wrong'] !== 0 || stats['wrong'] !== 0)
        throw new Error(`wrong pages: ${JSON.stringify({ verified, stats })}`);
      const code = await to.program.stop();
      if (code !== 0) throw new Error(`the destination VMM ended with ${code}: ${to.program.stderr}`);
      return summaryOf(migration);
    } finally {
      to.control.close();
      await to.program.stop();
    }
  } finally {
    from.control.close();
    await from.program.stop();
  }
}

function line(summary: MigrationSummary): string {
  const { faults: f, pages } = summary;
  return (
    `${summary.tier} ${(summary.fillingMs / 1000).toFixed(1)} s, ${pages.byFault}+${pages.byPrefetch} pages, ` +
    `${f.byCopy} COPY ${f.byWrite} write ${f.byZeropage} ZEROPAGE ${f.byContinue} CONTINUE ${f.byWake} wake, ${f.removedEvents} removals`
  );
}

async function soak({ runs, seed, killDest }: SoakOptions): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-soak-'));
  const source = await startSourceAgent(HOST);
  const destination = await MortalDest.start(HOST, join(folder, 'vmm'));
  try {
    for (let run = 0; run < runs; run++) {
      const guest = guestOf(seed + run, killDest);
      const killer = killDest ? randomOf(seed + run + 1) : undefined;
      try {
        process.stdout.write(`${seed + run}: ${line(await once(folder, { source, destination }, guest, killer))}\n`);
      } catch (error) {
        process.stderr.write(
          `${seed + run}: ${error instanceof Error ? error.message : String(error)}\n` +
            `  testvmm source ${guest.source.join(' ')}\n  testvmm destination ${guest.destination.join(' ')}\n` +
            `  again: npm run soak -- --seed ${seed + run} --runs 1${killDest ? ' --kill-dest' : ''}\n${destination.agent.program.stderr.slice(-3000)}`,
        );
        return 1;
      }
    }
    const deaths = killDest ? `, ${destination.deaths} deaths of the destination agent` : '';
    process.stdout.write(`${runs} migrations${deaths}, every page verified, none wrong\n`);
    return 0;
  } finally {
    await destination.stop();
    await source.program.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const whole = (text: string): number => Math.max(1, Math.trunc(Number(text)) || 1);
const command = new Command('npm run soak --')
  .description('Migrations of random guests, one after the other, each verified page by page.')
  .option('--runs <n>', 'how many', whole, 100)
  .option('--seed <n>', 'the first guest', whole, 1)
  .option('--kill-dest', 'kill the destination agent at random moments, and start it again', false)
  .addHelpText('after', '\nExample:\n  $ npm run soak -- --runs 500')
  .parse();
process.exitCode = await soak(command.opts<SoakOptions>());
