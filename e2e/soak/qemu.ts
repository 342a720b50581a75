/**
 * `npm run soak:qemu`: one guest in QEMU, there and back again, as often as is asked for; its whole memory is verified after each migration, its disk and
 * a TCP connection all the time.
 */
import { Command } from 'commander';
import { Cleanup } from '../lib/cleanup.ts';
import { openEcho } from '../lib/echo.ts';
import { QemuHosts, whyNoQemuMigration } from '../lib/qemu-migration.ts';

interface Options {
  readonly rounds: number;
  readonly memory: number;
}

async function soak({ rounds, memory }: Options, cleanup: Cleanup): Promise<void> {
  const hosts = await QemuHosts.make(cleanup, { guestNet: true, bothWays: true });
  const { net } = hosts;
  if (!net) throw new Error('the guest has no network');
  const machine = {
    memoryMiB: memory,
    cpus: 2,
    balloon: true,
    disk: { path: hosts.disk('disk', 64) },
    tap: net.taps.source,
    guest: { memMiB: memory / 2, workers: 2, disk: { blocksPerS: 500 }, net: net.guest },
  };
  let here = await hosts.boot(machine);
  const echo = await openEcho(net);
  cleanup.after(() => echo.program.stop());
  for (let round = 0; round < rounds; round++)
    for (const side of ['destination', 'source'] as const) {
      const there = await hosts.await(machine, side);
      const { summary, downtimeMs } = await hosts.migrate(here, there).result();
      const verified = await there.qemu.serial.verify();
      await echo.answers(5);
      process.stdout.write(
        `${round + 1} ${side === 'destination' ? 'there' : 'back'}: downtime ${downtimeMs.toFixed(0)} ms, ` +
          `${summary.fillingMs.toFixed(0)} ms of filling, ${summary.pages.byFault}+${summary.pages.byPrefetch} pages, ` +
          `${verified.pages} verified, ${verified.wrong} wrong, ${verified.disk} disk blocks\n`,
      );
      if (verified.wrong > 0) throw new Error(`${verified.wrong} wrong pages`);
      await here.stop();
      here = there.qemu;
    }
}

const whole = (text: string): number => Math.max(1, Math.trunc(Number(text)) || 1);
const command = new Command('npm run soak:qemu --')
  .description('One guest in QEMU, there and back again, verified page by page after each migration.')
  .option('--rounds <n>', 'how often there and back', whole, 10)
  .option('--memory <MiB>', 'of the guest; it works on half of it', whole, 512)
  .parse();

const why = whyNoQemuMigration();
const cleanup = new Cleanup();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cleanup.run().finally(() => process.exit(130)));
try {
  if (why !== undefined) throw new Error(why);
  await soak(command.opts<Options>(), cleanup);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await cleanup.run();
}
