/** What a migration costs between two moments: CPU time beside the guest's own, bytes on the link, and how long vCPUs stood still. */
import type { Hosts } from '../../e2e/lib/hosts.ts';
import type { Qemu } from '../../e2e/lib/qemu.ts';
import { processSeconds, vcpusOf, vcpuTimes, type VcpuThreads } from './cpu.ts';

/** Seconds by process; of a QEMU without its vCPU threads. */
export type CpuSeconds = Readonly<Record<string, number>>;

export interface Cost {
  /** Both directions, by the interface's counters. */
  readonly wireBytes: number;
  readonly cpuS: CpuSeconds;
  /** The part of it before `mark`. */
  readonly cpuBeforeS: CpuSeconds;
  /** vCPU threads of both, which is the guest's work, and their page faults. */
  readonly guestCpuS: number;
  /** The destination's vCPUs since `resumedAtMs`: neither running nor waiting for a CPU. */
  vcpuStallMs(resumedAtMs: number): number;
}

interface Sample {
  readonly atMs: number;
  readonly wireBytes: number;
  readonly cpuS: ReadonlyMap<string, number>;
  readonly vcpus: Readonly<Record<Side, ReturnType<typeof vcpuTimes>>>;
}

type Side = 'source' | 'destination';

export interface Metered {
  readonly hosts: Hosts;
  readonly from: Qemu;
  readonly to: Qemu;
  /** Beside the two QEMUs. */
  readonly helpers: readonly { readonly name: string; readonly pid: number }[];
}

function differenceOf(begin: Sample, end: Sample): CpuSeconds {
  const between = [...end.cpuS].map(([name, s]) => [name, Math.max(0, s - (begin.cpuS.get(name) ?? 0))] as const);
  return Object.fromEntries(between);
}

export const total = (cpu: CpuSeconds): number => Object.values(cpu).reduce((sum, s) => sum + s, 0);

export class Meter {
  readonly #hosts: Hosts;
  readonly #vcpus: Readonly<Record<Side, VcpuThreads>>;
  readonly #helpers: Map<string, number>;
  readonly #now: () => number;
  readonly #begin: Sample;
  #marked: Sample | undefined;

  private constructor({ hosts, helpers }: Metered, vcpus: Readonly<Record<Side, VcpuThreads>>, now: () => number) {
    this.#hosts = hosts;
    this.#vcpus = vcpus;
    this.#helpers = new Map(helpers.map(({ name, pid }) => [name, pid]));
    this.#now = now;
    this.#begin = this.#sample();
  }

  /** Begins to count. */
  static async start(metered: Metered, now: () => number): Promise<Meter> {
    const { from, to } = metered;
    return new Meter(metered, { source: await vcpusOf(from), destination: await vcpusOf(to) }, now);
  }

  /** A process that was started since: all of its time counts. */
  add(name: string, pid: number): void {
    this.#helpers.set(name, pid);
  }

  mark(): void {
    this.#marked = this.#sample();
  }

  /** Synchronous: whoever hears of the end asks in the same turn. */
  stop(): Cost {
    const [begin, end] = [this.#begin, this.#sample()];
    const ranMs = (side: Side): number => end.vcpus[side].ranMs - begin.vcpus[side].ranMs;
    const queuedMs = end.vcpus.destination.queuedMs - begin.vcpus.destination.queuedMs;
    const vcpuCount = this.#vcpus.destination.threads.length;
    return {
      wireBytes: end.wireBytes - begin.wireBytes,
      cpuS: differenceOf(begin, end),
      cpuBeforeS: differenceOf(begin, this.#marked ?? begin),
      guestCpuS: (ranMs('source') + ranMs('destination')) / 1000,
      vcpuStallMs: (resumedAtMs) => Math.max(0, (end.atMs - resumedAtMs) * vcpuCount - ranMs('destination') - queuedMs),
    };
  }

  #sample(): Sample {
    const { sent, received } = this.#hosts.wireBytes() ?? { sent: 0, received: 0 };
    const vcpus = { source: vcpuTimes(this.#vcpus.source), destination: vcpuTimes(this.#vcpus.destination) };
    const qemu = (side: Side): [string, number] => [
      `QEMU, ${side}`,
      processSeconds(this.#vcpus[side].pid) - vcpus[side].ranMs / 1000,
    ];
    const helpers = [...this.#helpers].map(([name, pid]): [string, number] => [name, processSeconds(pid)]);
    return {
      atMs: this.#now(),
      wireBytes: sent + received,
      cpuS: new Map([qemu('source'), qemu('destination'), ...helpers]),
      vcpus,
    };
  }
}
