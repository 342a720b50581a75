/** CPU time of processes, to the nanosecond: the kernel's own count of each thread, not the ticks of /proc/PID/stat. */
import { readdirSync, readFileSync } from 'node:fs';

/** Of all threads that a process has. One that ends in between takes its time with it, so this is for spans in which none does. */
export function cpuSecondsOfThreads(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const ranNs = threads.map((tid) => Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]));
  return ranNs.reduce((sum, ns) => sum + ns, 0) / 1e9;
}
