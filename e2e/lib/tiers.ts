/** Which kinds of guest memory this machine's kernel can serve, by `pagewake probe` itself, and what to do where it cannot. */
import { execFileSync } from 'node:child_process';
import { PAGEWAKE } from './agents.ts';

interface TierHere {
  readonly tier: string;
  readonly available: boolean;
  readonly missing: readonly string[];
}

let found: readonly TierHere[] | undefined;

function tiers(): readonly TierHere[] {
  if (found) return found;
  const said = execFileSync(process.execPath, [PAGEWAKE, 'probe', '--json'], { encoding: 'utf8' });
  found = (JSON.parse(said) as { readonly tiers: readonly TierHere[] }).tiers;
  return found;
}

/** Why no VM of this tier can be migrated to this machine, or undefined. */
export function whyNoTier(name: 'guest-memfd-full' | 'guest-memfd-eager' | 'memfd-userfault'): string | undefined {
  const tier = tiers().find(({ tier }) => tier === name);
  if (tier === undefined) throw new Error(`pagewake probe does not know the tier ${name}`);
  if (tier.available) return undefined;
  return `${name}: this kernel has no ${tier.missing.join(', no ')}; npm run lab runs it`;
}
