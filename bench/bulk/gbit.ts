/**
 * Fills over a link that is the bottleneck: what compression is for. A program of its own, as agents in network namespaces are only reached from there:
 * this one runs beside the source.
 *
 *   gbit.ts {"folder":…, "pages":…, "contents":[…], "hosts":{"source":…,"destination":…}}
 *
 * Prints one JSON line a content.
 */
import { Cleanup } from '../../e2e/lib/cleanup.ts';
import type { Hosts } from '../../e2e/lib/hosts.ts';
import { startPageServer, type Content } from '../lib/floor.ts';
import { Product } from '../lib/product.ts';
import { fillFloor, fillProduct, type BulkSample } from './fills.ts';

export interface GbitPlan {
  readonly folder: string;
  readonly pages: number;
  readonly contents: readonly Content[];
  readonly hosts: Pick<Hosts, 'source' | 'destination'>;
}

export interface GbitLine {
  readonly content: Content;
  readonly product: BulkSample;
  readonly floor: BulkSample;
}

async function run({ folder, pages, contents, hosts }: GbitPlan, scope: Cleanup): Promise<void> {
  let product: Product | undefined;
  for (const content of contents) {
    const server = await startPageServer(pages, { content, host: hosts.source });
    scope.after(() => server.program.stop());
    if (product === undefined) {
      const started = await Product.start({ server, folder, destinationHost: hosts.destination });
      scope.after(() => started.stop());
      product = started;
    }
    const filling = { server, content, pages, host: hosts.destination };
    const line: GbitLine = { content, floor: await fillFloor(filling), product: await fillProduct(product, filling) };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    await server.program.stop();
  }
}

const scope = new Cleanup();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void scope.run().finally(() => process.exit(130)));
try {
  await run(JSON.parse(process.argv[2] ?? '') as GbitPlan, scope);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await scope.run();
}
