/** Tables for people: columns apart by blanks, no frames, so that they can be cut and grepped. */
import Table from 'cli-table3';
import { SourceVmState, type SourceVm } from '@pagewake/proto';
import type { MigrationSummary } from '../view.ts';
import { bytes, duration, microseconds, percent } from './format.ts';

const NO_FRAME = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

export const PLAIN_TABLE = {
  chars: NO_FRAME,
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
};

/** Without the blanks that pad the last column. */
export function render(table: { toString(): string }): string {
  return table.toString().replaceAll(/[ \t]+$/gm, '');
}

export function migrationsTable(migrations: readonly MigrationSummary[]): string {
  if (migrations.length === 0) return 'no migrations';
  const head = ['MIGRATION', 'VM', 'PHASE', 'MODE', 'PAGES', 'WHOLE', 'FAULTS', 'P50', 'P99', 'ERROR'];
  const table = new Table({ ...PLAIN_TABLE, head });
  for (const m of migrations) {
    table.push([
      m.migrationId,
      m.vmId,
      m.phase,
      m.mode === '' ? '-' : m.mode,
      `${String(m.pages.present)}/${String(m.pages.total)}`,
      percent(m.pages.present, m.pages.total),
      String(m.faults.total),
      microseconds(m.faults.stallP50Us),
      microseconds(m.faults.stallP99Us),
      m.error?.reason ?? '-',
    ]);
  }
  return render(table);
}

export function vmsTable(vms: readonly SourceVm[]): string {
  if (vms.length === 0) return 'no VMs';
  const head = ['VM', 'GENERATION', 'STATE', 'SIZE', 'PAGES SERVED', 'PAYLOAD', 'DESTINATION'];
  const table = new Table({ ...PLAIN_TABLE, head });
  for (const vm of vms) {
    table.push([
      vm.vmId,
      String(vm.generation),
      (SourceVmState[vm.state] ?? 'unknown').toLowerCase(),
      bytes(sizeOf(vm)),
      String(vm.pagesServed),
      bytes(Number(vm.payloadBytes)),
      vm.destinationId === '' ? '-' : vm.destinationId,
    ]);
  }
  return render(table);
}

export function sizeOf(vm: SourceVm): number {
  return vm.regions.reduce((sum, { pageCount, pageSizeBytes }) => sum + pageCount * pageSizeBytes, 0);
}

/** All that is known of one. */
export function migrationDetails(m: MigrationSummary): string {
  const { pages, faults } = m;
  const rows: readonly (readonly [string, string])[] = [
    ['migration', m.migrationId],
    ['vm', m.vmId],
    ['phase', m.phase],
    ...(m.error === null ? [] : [['error', `${m.error.reason}: ${m.error.message}`] as const]),
    ['mode', m.modeReason === '' ? m.mode : `${m.mode} (${m.modeReason})`],
    ['memory tier', m.tier],
    ['vmm socket', m.vmmSocket],
    ['started', m.startedAt ?? ''],
    ['filling', duration(m.fillingMs)],
    ['pages', `${String(pages.present)} of ${String(pages.total)} (${percent(pages.present, pages.total)})`],
    [
      'pages by',
      `fault ${String(pages.byFault)}, prefetch ${String(pages.byPrefetch)}, zero ${String(pages.zero)}, removed ${String(pages.removed)}`,
    ],
    ['received', `${bytes(m.payloadBytes)} of pages, ${bytes(m.wireBytes)} on the wire`],
    [
      'faults',
      `${String(faults.total)}: user space ${String(faults.userSpace)}, stage-2 ${String(faults.stage2)} (${String(faults.stage2Exits)} by exits), minor ${String(faults.minor)}`,
    ],
    [
      'faults by call',
      `copy ${String(faults.byCopy)}, write ${String(faults.byWrite)}, zeropage ${String(faults.byZeropage)}, continue ${String(faults.byContinue)}, wake ${String(faults.byWake)}`,
    ],
    ...(faults.stage2 === 0
      ? []
      : [
          [
            'of stage-2',
            `copy ${String(faults.stage2ByCopy)}, write ${String(faults.stage2ByWrite)}, zeropage ${String(faults.stage2ByZeropage)}, continue ${String(faults.stage2ByContinue)}, wake ${String(faults.stage2ByWake)}`,
          ] as const,
        ]),
    [
      'stall',
      `p50 ${microseconds(faults.stallP50Us)}, p99 ${microseconds(faults.stallP99Us)}, max ${microseconds(faults.stallMaxUs)}`,
    ],
    ['link losses', `${String(m.linkLosses)}; frames refused ${String(m.badFrames)}`],
    ...(m.traceId === '' ? [] : [['trace', m.traceId] as const]),
  ];
  const table = new Table(PLAIN_TABLE);
  for (const [name, value] of rows) table.push([name, value]);
  return render(table);
}
