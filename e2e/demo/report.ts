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
  /** What the vCPUs are. */
  readonly runsOn: string;
  readonly longestGapMs: number;
  readonly verifiedPages: number;
  readonly wrong: number;
  /** By the kernel's count on the link; undefined on loopback. */
  readonly linkBytes: number | undefined;
  /** Further lines. */
  readonly more?: readonly (readonly [string, string])[];
}

const MIB = 2 ** 20;
const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

/** Those of the steps that are in the blackout, with their times. */
export function stepsOf(result: JsonLine, inBlackout: readonly string[]): string {
  const steps = result['steps'] as { readonly step: string; readonly ms: number }[];
  return steps
    .filter(({ step }) => inBlackout.includes(step))
    .map(({ step, ms }) => `${step} ${ms.toFixed(0)}`)
    .join(', ');
}

export function report(findings: Findings): string {
  const { summary, downtimeMs, downtimeSteps, linkBytes } = findings;
  const { pages, faults } = summary;
  const table = new Table({ style: { head: [], border: [] }, wordWrap: true, colWidths: [26, 88] });
  table.push(
    ['guest runs on', findings.runsOn],
    ['memory, mode', `${summary.tier}, ${summary.mode}: ${summary.modeReason}`],
    ['downtime', `${downtimeMs.toFixed(1)} ms (${downtimeSteps})`],
    ['longest heartbeat gap', `${findings.longestGapMs.toFixed(0)} ms (a beat every 100 ms; the move included)`],
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
    ...(findings.more ?? []).map(([name, value]) => [name, value]),
    ['verified', `${findings.verifiedPages} pages looked at, one by one`],
    ['wrong pages', String(findings.wrong)],
  );
  return table.toString();
}
