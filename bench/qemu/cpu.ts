/** CPU time of a migration's processes and of the guest's vCPUs, as the kernel counts it. */
import { readFileSync } from 'node:fs';
import type { Qemu } from '../../e2e/lib/qemu.ts';

/** Of /proc/PID/stat on Linux, whatever CONFIG_HZ is. */
const TICKS_PER_S = 100;
const UTIME = 11;

/** User and system time of a process, of threads that have ended as well; its name may hold spaces and brackets. */
export function cpuSecondsOf(stat: string): number {
  const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(afterName[UTIME]) + Number(afterName[UTIME + 1])) / TICKS_PER_S;
}

export interface ThreadTimes {
  readonly ranMs: number;
  /** Wanted to run and had no CPU. */
  readonly queuedMs: number;
}

export function threadTimesOf(schedstat: string): ThreadTimes {
  const [ranNs = 0, queuedNs = 0] = schedstat.trim().split(' ').map(Number);
  return { ranMs: ranNs / 1e6, queuedMs: queuedNs / 1e6 };
}

interface CpuInfo {
  readonly 'thread-id': number;
}

export interface VcpuThreads {
  readonly pid: number;
  readonly threads: readonly number[];
}

export async function vcpusOf({ program, qmp }: Qemu): Promise<VcpuThreads> {
  const cpus = (await qmp.execute('query-cpus-fast')) as readonly CpuInfo[];
  return { pid: program.pid, threads: cpus.map((cpu) => cpu['thread-id']) };
}

/** What all vCPUs of one QEMU did together. */
export function vcpuTimes({ pid, threads }: VcpuThreads): ThreadTimes {
  const all = threads.map((tid) => threadTimesOf(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8')));
  return {
    ranMs: all.reduce((sum, { ranMs }) => sum + ranMs, 0),
    queuedMs: all.reduce((sum, { queuedMs }) => sum + queuedMs, 0),
  };
}

export const processSeconds = (pid: number): number => cpuSecondsOf(readFileSync(`/proc/${pid}/stat`, 'utf8'));
