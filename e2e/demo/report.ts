/** The table at the end. */
import Table from 'cli-table3';
import type { MigrationSummary } from '@pagewake/orchestrator';
import type { JsonLine } from '../lib/processes.ts';
import { ms } from './progress.ts';

export interface Findings {
  readonly summary: MigrationSummary;
  readonly downtimeMs: number;
  /** The slowest parts of it. */
  readonly downtimeSteps: string;
  /** Of the destination's VMM. */
  readonly stats: JsonLine;
  readonly verified: JsonLine;
  /** By the kernel's count on the link; undefined on loopback. */
  readonly linkBytes: number | undefined;
}

const MIB = 2 ** 20;
const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

interface Worker {
  readonly longest_gap_since_load_ms: number;
  readonly move_gap_ms?: number;
}

/** The longest silence of any heartbeat from the pause on, the move itself included. */
function longestGapMs(stats: JsonLine): number {
  const workers = [...(stats['vcpus'] as Worker[]), ...(stats['io'] ? [stats['io'] as Worker] : [])];
  return Math.max(...workers.flatMap((w) => [w.longest_gap_since_load_ms, w.move_gap_ms ?? 0]));
}

export function report({ summary, downtimeMs, downtimeSteps, stats, verified, linkBytes }: Findings): string {
  const { pages, faults } = summary;
  const table = new Table({ style: { head: [], border: [] }, wordWrap: true, colWidths: [26, 88] });
  table.push(
    ['guest runs on', stats['kvm'] === true ? 'KVM vCPUs' : 'plain threads (no KVM here)'],
    ['memory, mode', `${summary.tier}, ${summary.mode}: ${summary.modeReason}`],
    ['downtime', `${downtimeMs.toFixed(1)} ms (${downtimeSteps})`],
    ['longest heartbeat gap', `${longestGapMs(stats).toFixed(0)} ms (a beat every 100 ms; the move included)`],
    ['time until whole', `${(summary.fillingMs / 1000).toFixed(2)} s from the handover to the last page`],
    ['faults', `${faults.total}: ${faults.stage2} stage-2, ${faults.userSpace} user-space, ${faults.minor} minor`],
    [
      'resolved by call',
      `${faults.byCopy} COPY, ${faults.byWrite} write, ${faults.byZeropage} ZEROPAGE, ${faults.byContinue} CONTINUE, ${faults.byWake} wake`,
    ],
    [
      'fault stall',
      `p50 ${ms(faults.stallP50Us)}, p99 ${ms(faults.stallP99Us)}, max ${ms(faults.stallMaxUs)}, of faults that waited for the source`,
    ],
    [
      'pages',
      `${pages.total}: ${pages.byFault} by fault, ${pages.byPrefetch} by prefetch, ${pages.zero} zero (never sent)`,
    ],
    [
      'bytes on the wire',
      `${mib(summary.wireBytes)} of messages, ${mib(summary.payloadBytes)} of pages` +
        (linkBytes === undefined ? '' : `; ${mib(linkBytes)} on the link by the kernel’s count`),
    ],
    ['verified', `${String(verified['pages'])} pages looked at, one by one`],
    ['wrong pages', String(verified['wrong'])],
  );
  return table.toString();
}
