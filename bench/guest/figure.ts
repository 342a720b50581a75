/** The chart of the guest section: how fast the guest works, around the moment in which it moves. */
import { chartSvg, type LinePanel, type Mark } from '../lib/chart.ts';
import { figureOf } from '../lib/rows.ts';
import { ORDERS, type Guest, type GuestRun, type Order } from './migration.ts';

export type GuestRuns = Readonly<Record<Order, readonly GuestRun[]>>;

const TITLES: Readonly<Record<Order, string>> = {
  sequential: 'memory from first to last',
  random: 'memory in random order',
};

function panelOf(order: Order, runs: readonly GuestRun[], { windowMs }: Guest): LinePanel {
  const windowS = windowMs / 1000;
  const before = figureOf(runs.map((run) => run.pagesBefore / windowS / 1000)).median;
  const wholeS = figureOf(runs.map((run) => run.wholeMs / 1000)).median;
  const within = (atS: number): boolean => atS >= -windowS && atS <= windowS;
  const marks: readonly Mark[] = [
    { x: 0, label: 'stops on the source', side: 'left' },
    { x: wholeS, label: `all there: ${wholeS.toFixed(2)} s`, side: 'right' },
  ];
  return {
    title: `${TITLES[order]}, thousand pages a second`,
    unit: '',
    x: { unit: 's', from: -windowS, to: windowS },
    curves: [
      {
        colour: 0,
        points: [
          [-windowS, before],
          [windowS, before],
        ],
      },
      ...runs.map((run) => ({
        colour: 2 as const,
        points: run.speeds
          .filter(({ atMs }) => within(atMs / 1000))
          .map(({ atMs, pagesPerSecond }) => [atMs / 1000, pagesPerSecond / 1000] as const),
      })),
    ],
    marks,
  };
}

export function guestChart(guest: Guest, runs: GuestRuns): string {
  const kvm = ORDERS.every((order) => runs[order].every((run) => run.kvm));
  return chartSvg({
    title: 'What a guest gets done while it moves',
    subtitle: `${kvm ? 'KVM vCPU' : 'a plain thread'} that verifies and rewrites ${guest.workMiB} MiB as fast as it can, over loopback, 2 hosts on one machine; more is better`,
    series: ['without a migration (median)', '', 'each migration'],
    panels: ORDERS.map((order) => panelOf(order, runs[order], guest)),
  });
}
