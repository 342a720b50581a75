/** What `npm start` can be told. */
import { totalmem } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';

export const MEMORY_KINDS = ['memfd', 'anon', 'guest_memfd'] as const;
export type MemoryKind = (typeof MEMORY_KINDS)[number];

export interface DemoOptions {
  readonly qemu: boolean;
  readonly ram: string;
  readonly workload: string;
  readonly vcpus: number;
  readonly memory: MemoryKind;
  readonly pattern: 'random' | 'text' | 'zero-heavy';
  readonly regions: number;
  readonly minor: boolean;
  readonly vcpuRate: number;
  readonly kvm: boolean;
  readonly hosts: 'best' | 'loopback';
}

const SIZE = /^(\d+)([KMG])$/;
const MIB = 2 ** 20;
const UNIT_BYTES: Readonly<Record<string, number>> = { K: 2 ** 10, M: MIB, G: 2 ** 30 };
const PAGE_BYTES = 4096;
/** Most machines that try it run the guest without KVM. */
const QEMU_RAM = '512M';
const QEMU_WORKLOAD = '256M';
/** A kernel and what it needs. */
const QEMU_GUEST_BYTES = 96 * MIB;
const REGION_UNIT_BYTES = 2 * 2 ** 20;

export function sizeBytes(size: string): number {
  const [, digits, unit] = SIZE.exec(size) ?? [];
  return Number(digits) * (UNIT_BYTES[unit ?? ''] ?? Number.NaN);
}

function size(text: string): string {
  const bytes = sizeBytes(text);
  if (!(bytes >= PAGE_BYTES)) throw new InvalidArgumentError('give a size such as 512M or 1G.');
  return text;
}

function count(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`give a whole number from ${least} to ${most}.`);
    return value;
  };
}

/** Ends the process with usage where the arguments are wrong. */
export function parseOptions(argv: readonly string[]): DemoOptions {
  const command = new Command('npm start --')
    .description(
      'Migrates the memory of a real, running KVM guest between two agents on two hosts (network namespaces where root allows it, ' +
        'else loopback), verifies every page, and shows what happened.',
    )
    .option('--qemu', 'a Linux guest in an unmodified QEMU instead, moved to another QEMU', false)
    .addOption(new Option('--ram <size>', 'guest memory (with --qemu: 512M)').default('1G').argParser(size))
    .addOption(
      new Option('--workload <size>', 'of it, memory that the vCPUs keep rewriting (with --qemu: 256M)')
        .default('576M')
        .argParser(size),
    )
    .addOption(new Option('--vcpus <n>', 'virtual CPUs').default(2).argParser(count(1, 62)))
    .addOption(
      new Option('--memory <kind>', 'what backs the guest on both sides').choices(MEMORY_KINDS).default('memfd'),
    )
    .addOption(
      new Option('--pattern <kind>', 'content of the memory')
        .choices(['random', 'text', 'zero-heavy'])
        .default('random'),
    )
    .addOption(new Option('--regions <n>', 'pieces that guest memory is in').default(1).argParser(count(1, 8)))
    .option('--minor', 'the destination VMM registers for minor faults too', false)
    .addOption(
      new Option(
        '--vcpu-rate <n>',
        'pages a second of each vCPU; 0: as fast as it can (it then takes the CPUs that the agents need)',
      )
        .default(5000)
        .argParser(count(0, 10_000_000)),
    )
    .option('--no-kvm', 'run the workload on plain threads even where /dev/kvm is')
    .addOption(
      new Option('--hosts <kind>', 'two network namespaces where possible, or loopback')
        .choices(['best', 'loopback'])
        .default('best'),
    )
    .addHelpText(
      'after',
      '\nExamples:\n  $ npm start\n  $ npm start -- --qemu\n  $ npm start -- --ram 2G --workload 1G --vcpus 4\n  $ npm start -- --memory guest_memfd --ram 256M --workload 128M',
    );
  // 2 for wrong usage, as the product has it.
  command.exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2));
  command.parse([...argv], { from: 'user' });
  const given = (name: string): boolean => command.getOptionValueSource(name) === 'cli';
  const set = command.opts<DemoOptions>();
  const options: DemoOptions = set.qemu
    ? { ...set, ram: given('ram') ? set.ram : QEMU_RAM, workload: given('workload') ? set.workload : QEMU_WORKLOAD }
    : set;
  const wrong = (options.qemu ? unfitForQemu(options, given) : undefined) ?? contradiction(options);
  if (wrong !== undefined) command.error(`error: ${wrong}`);
  return options;
}

function unfitForQemu(o: DemoOptions, given: (name: string) => boolean): string | undefined {
  for (const name of ['memory', 'regions', 'minor'])
    if (given(name)) return `--${name} is of the test VMM, and not of --qemu`;
  if (o.pattern === 'zero-heavy') return '--pattern zero-heavy is of the test VMM, and not of --qemu';
  if (sizeBytes(o.ram) % MIB !== 0 || sizeBytes(o.workload) % MIB !== 0)
    return '--ram and --workload are whole MiB with --qemu';
  if (sizeBytes(o.ram) - sizeBytes(o.workload) < QEMU_GUEST_BYTES)
    return `--workload ${o.workload} does not fit into --ram ${o.ram} beside the guest's kernel`;
  return undefined;
}

/** What the test VMM or this machine would refuse, said before anything is started. */
function contradiction(o: DemoOptions): string | undefined {
  const ram = sizeBytes(o.ram);
  if (sizeBytes(o.workload) * 1.05 > ram)
    return `--workload ${o.workload} does not fit into --ram ${o.ram} with room for the I/O thread's pages`;
  if (2 * ram > totalmem()) return `two guests of --ram ${o.ram} do not fit into this machine's memory`;
  if (ram % (o.regions * REGION_UNIT_BYTES) !== 0)
    return `--ram ${o.ram} cannot be cut into ${o.regions} equal regions of whole 2 MiB`;
  if (o.minor && o.memory !== 'memfd') return `--minor needs --memory memfd: ${o.memory} has no minor faults here`;
  return undefined;
}
