/** What a guest that works loses by being moved, and how many of its touches reach the network. */
import { buildFloor, startPageServer } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import { figureOf } from '../lib/rows.ts';
import type { Context, Section, SizeName } from '../lib/section.ts';
import { amount, table, type Cells } from '../lib/table.ts';
import { guestChart } from './figure.ts';
import { migrateGuest, ORDERS, type Guest, type GuestRun, type Order } from './migration.ts';
import { roam, type Roamed } from './roam.ts';

interface Sizes {
  readonly guest: Guest;
  readonly roamPages: number;
}

const SIZES: Readonly<Record<SizeName, Sizes>> = {
  full: { guest: { memoryMiB: 1024, workMiB: 512, windowMs: 5000 }, roamPages: 131_072 },
  quick: { guest: { memoryMiB: 512, workMiB: 256, windowMs: 2000 }, roamPages: 131_072 },
  smoke: { guest: { memoryMiB: 64, workMiB: 32, windowMs: 400 }, roamPages: 8192 },
};

type ByOrder<T> = Readonly<Record<Order, T>>;

const byOrder = <T>(of: (order: Order) => T): ByOrder<T> => ({ sequential: of('sequential'), random: of('random') });
const ms = (us: number): number => us / 1000;

interface Line<T> {
  readonly what: string;
  readonly of: (run: T) => number;
  readonly show: (value: number) => string;
}

const count = (value: number): string => value.toFixed(0);
const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;

const guestLines = ({ windowMs }: Guest): readonly Line<GuestRun>[] => [
  { what: `pages in ${windowMs / 1000} s without a migration`, of: (r) => r.pagesBefore, show: count },
  { what: `pages in the ${windowMs / 1000} s from its stop on the source`, of: (r) => r.pagesAfter, show: count },
  { what: 'lost', of: (r) => r.lost, show: percent },
  { what: 'downtime', of: (r) => r.downtimeMs, show: (v) => amount(v, 'ms') },
  { what: 'until its memory is whole', of: (r) => r.wholeMs, show: (v) => amount(v, 'ms') },
  { what: 'pages done until then', of: (r) => r.pagesUntilWhole, show: count },
  { what: 'faults that reached the network', of: (r) => r.faults.fromSource, show: count },
  { what: 'fault stall p50', of: (r) => ms(r.stallP50Us), show: (v) => `${v.toFixed(2)} ms` },
  { what: 'fault stall p99', of: (r) => ms(r.stallP99Us), show: (v) => `${v.toFixed(2)} ms` },
  { what: 'pages looked at afterwards, none wrong', of: (r) => r.verifiedPages, show: count },
];

const ROAM_LINES: readonly Line<Roamed>[] = [
  { what: 'pages touched before all were there', of: (r) => r.touchedPages, show: count },
  { what: 'requests for one of them on the network', of: (r) => r.networkFaults, show: count },
  { what: 'their share', of: (r) => r.ratio, show: (v) => v.toFixed(3) },
  { what: 'touches that waited for what was on its way', of: (r) => r.waitedForPrefetch, show: count },
  { what: 'until the memory is whole', of: (r) => r.wholeMs, show: (v) => amount(v, 'ms') },
  { what: 'fault stall p50', of: (r) => ms(r.stallP50Us), show: (v) => `${v.toFixed(2)} ms` },
  { what: 'fault stall p99', of: (r) => ms(r.stallP99Us), show: (v) => `${v.toFixed(2)} ms` },
];

const medianOf = <T>(runs: readonly T[], of: (run: T) => number): number => figureOf(runs.map(of)).median;

function tableOf<T>(head: string, lines: readonly Line<T>[], runs: ByOrder<readonly T[]>): string {
  const cells = ({ what, of, show }: Line<T>): Cells => [what, ...ORDERS.map((o) => show(medianOf(runs[o], of)))];
  return table([head, ...ORDERS], lines.map(cells));
}

export const section: Section = {
  name: 'guest',
  title: 'what a guest loses by being moved, and how many of its touches reach the network',
  async run(context: Context) {
    const { size, runs: runCount, folder, say, cleanup } = context;
    const { guest, roamPages } = SIZES[size];
    buildFloor();
    const server = await startPageServer(roamPages);
    cleanup(async () => void (await server.program.stop()));
    const roamed = byOrder<Roamed[]>(() => []);
    const product = await Product.start({ server, folder });
    cleanup(() => product.stop());
    for (let run = 1; run <= runCount; run++)
      for (const order of ORDERS) roamed[order].push(await roam(product, order, roamPages));
    // Nothing of it may be beside the guest.
    await product.stop();
    await server.program.stop();

    const runs = byOrder<GuestRun[]>(() => []);
    for (let run = 1; run <= runCount; run++) {
      say(`run ${run} of ${runCount} ...`);
      for (const order of ORDERS) runs[order].push(await migrateGuest(order, guest, context));
    }
    const on = runs.random[0]?.kvm === true ? 'a KVM vCPU' : 'a plain thread (no KVM here)';
    return {
      table: [
        tableOf(`${guest.workMiB} of ${guest.memoryMiB} MiB, ${on}`, guestLines(guest), runs),
        tableOf(`${roamPages / 256} MiB, each page touched once`, ROAM_LINES, roamed),
      ].join('\n\n'),
      bars: {
        networkFaultsSequential: medianOf(roamed.sequential, (r) => r.ratio),
        networkFaultsRandom: medianOf(roamed.random, (r) => r.ratio),
      },
      data: { guest, runs, roamPages, roamed },
      charts: [{ file: 'guest.svg', svg: guestChart(guest, runs) }],
    };
  },
};
