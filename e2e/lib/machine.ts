/** What this machine lacks, in the words that a skipped test prints. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';

/** Why no guest can run on KVM here, or undefined. The tests then run their workload on plain threads, or skip where that is no replacement. */
export function whyNoKvm(): string | undefined {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return existsSync('/dev/kvm') ? '/dev/kvm may not be opened by this user' : '/dev/kvm is not there';
  }
}

/** Why no 2 MiB pages can be had, or undefined. Never changes the machine's own settings to have some. */
export function whyNoHugePages(): string | undefined {
  const meminfo = readFileSync('/proc/meminfo', 'utf8');
  const free = Number(/^HugePages_Free:\s+(\d+)/m.exec(meminfo)?.[1] ?? 0);
  return free >= 64 ? undefined : `${free} free pages of 2 MiB (vm.nr_hugepages), 64 are needed`;
}
