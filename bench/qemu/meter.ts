/** What a migration costs between two moments: CPU time beside the guest's own, bytes on the link, and how long vCPUs stood still. */
import type { Hosts } from '../../e2e/lib/hosts.ts';
import type { Qemu } from '../../e2e/lib/qemu.ts';
import { processSeconds, vcpusOf, vcpuTimes, type VcpuThreads } from './cpu.ts';

export interface Cost {
  /** Both directions, by the interface's counters. */
  readonly wireBytes: number;
  /** Both QEMUs, without their vCPU threads. */
  readonly qemuCpuS: number;
  /** Agents and orchestrator. */
  readonly helpersCpuS: number;
  /** vCPU threads of both, which is the guest's work, and their page faults. */
  readonly guestCpuS: number;
  /** The destination's vCPUs since `resumedAtMs`: neither running nor waiting for a CPU. */
  vcpuStallMs(resumedAtMs: number): number;
}

interface Sample {
  readonly atMs: number;
  readonly wireBytes: number;
  readonly qemuS: number;
  readonly helpersS: number;
  readonly vcpus: readonly { readonly ranMs: number; readonly queuedMs: number }[];
}

export class Meter {
  readonly #hosts: Hosts;
  readonly #vcpus: readonly VcpuThreads[];
  readonly #helpers: number[];
  readonly #now: () => number;
  readonly #begin: Sample;

  private constructor(hosts: Hosts, vcpus: readonly VcpuThreads[], helpers: readonly number[], now: () => number) {
    this.#hosts = hosts;
    this.#vcpus = vcpus;
    this.#helpers = [...helpers];
    this.#now = now;
    this.#begin = this.#sample();
  }

  /** Begins to count. @param helpers pids beside the two QEMUs */
  static async start(
    { hosts, from, to, helpers }: { hosts: Hosts; from: Qemu; to: Qemu; helpers: readonly number[] },
    now: () => number,
  ): Promise<Meter> {
    return new Meter(hosts, [await vcpusOf(from), await vcpusOf(to)], helpers, now);
  }

  /** A process that was started since: all of its time counts. */
  add(pid: number): void {
    this.#helpers.push(pid);
  }

  /** Synchronous: whoever hears of the end asks in the same turn. */
  stop(): Cost {
    const [begin, end] = [this.#begin, this.#sample()];
    const ran = (side: number): number => (end.vcpus[side]?.ranMs ?? 0) - (begin.vcpus[side]?.ranMs ?? 0);
    const queued = (end.vcpus[1]?.queuedMs ?? 0) - (begin.vcpus[1]?.queuedMs ?? 0);
    const guestCpuS = (ran(0) + ran(1)) / 1000;
    const vcpuCount = this.#vcpus[1]?.threads.length ?? 0;
    return {
      wireBytes: end.wireBytes - begin.wireBytes,
      // Ticks here, nanoseconds there: a QEMU that did next to nothing may come out just below zero.
      qemuCpuS: Math.max(0, end.qemuS - begin.qemuS - guestCpuS),
      helpersCpuS: end.helpersS - begin.helpersS,
      guestCpuS,
      vcpuStallMs: (resumedAtMs) => Math.max(0, (end.atMs - resumedAtMs) * vcpuCount - ran(1) - queued),
    };
  }

  #sample(): Sample {
    const { sent, received } = this.#hosts.wireBytes() ?? { sent: 0, received: 0 };
    return {
      atMs: this.#now(),
      wireBytes: sent + received,
      qemuS: this.#vcpus.reduce((sum, { pid }) => sum + processSeconds(pid), 0),
      helpersS: this.#helpers.reduce((sum, pid) => sum + processSeconds(pid), 0),
      vcpus: this.#vcpus.map(vcpuTimes),
    };
  }
}
