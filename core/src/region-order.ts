/** Regions are told apart by number on the wire, and each side's VMM has an order of its own: names bring the two together. */
import { GuestLayout, type PagePlace } from './layout.ts';

export class RegionNameError extends Error {
  override readonly name = 'RegionNameError';
}

/**
 * The layout with its regions in the order of these names; their offsets follow that order.
 * @param names of the other side's regions; none: as it is
 * @throws RegionNameError that lists both sides where they are not the very same names, each once
 */
export function orderByName(layout: GuestLayout, names: readonly string[]): GuestLayout {
  if (names.length === 0) return layout;
  const found = names.map((name) => layout.regions.filter((region) => region.name === name));
  if (names.length !== layout.regions.length || found.some((regions) => regions.length !== 1))
    throw new RegionNameError(
      `the VMM's regions are ${list(layout.regions.map(({ name }) => name))}; ${list(names)} were expected, each once`,
    );
  let offset = 0;
  return new GuestLayout(
    found.flat().map(({ address, sizeBytes, pageSizeBytes, file, fileOffset, gpaStart, name }) => {
      const input = { address, sizeBytes, pageSizeBytes, file, fileOffset, gpaStart, name, offset };
      offset += sizeBytes;
      return input;
    }),
  );
}

/** The same page in another order of the same regions. */
export function inOrder(place: PagePlace, layout: GuestLayout): PagePlace | undefined {
  return layout.atAddress(place.region.address + place.page * place.region.pageSizeBytes);
}

const list = (names: readonly (string | undefined)[]): string =>
  names.map((name) => (name === undefined ? 'one without a name' : JSON.stringify(name))).join(', ');
