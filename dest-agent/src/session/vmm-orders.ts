/** What a message of the VMM asks of the fault lane, and what it is answered. */
import {
  inOrder,
  type GuestLayout,
  type PagePlace,
  type ResolvedPage,
  type Stage2Fault,
  type VmmMessage,
} from '@pagewake/core';
import { HandshakeError } from '@pagewake/core/messages';
import type { Stage2Page, Stage2Request, ToLane } from '../lanes/messages.ts';
import { parseTraceparent } from './traceparent.ts';

/** One VM's regions, in the VMM's order and in ours: offsets on its channel are of its own. */
export interface Layouts {
  readonly offered: GuestLayout;
  readonly layout: GuestLayout;
}

export type RemovedOrder = Extract<ToLane, { type: 'removed' }>;

/** @throws HandshakeError where the message names memory that is in no region, or removes what are no whole pages; ignored it would leave a vCPU waiting */
export function laneOrderOf(message: VmmMessage, layouts: Layouts): ToLane {
  switch (message.type) {
    case 'stage2_fault':
      return { type: 'stage2', faults: [stage2Request(message, layouts)] };
    case 'stage2_faults':
      return { type: 'stage2', faults: message.faults.map((fault) => stage2Request(fault, layouts)) };
    case 'removed': {
      const order = removedOrder(message, layouts);
      if (order) return order;
      throw new HandshakeError(
        `removed: ${message.len} bytes at ${message.offset} are no whole pages that the VMM handed over`,
      );
    }
  }
}

function stage2Request(fault: Stage2Fault, { offered, layout }: Layouts): Stage2Request {
  const place = placeOf(fault, offered);
  const ours = place && inOrder(place, layout);
  const at = [fault.offset ?? [], fault.gpa === undefined ? [] : `gpa ${fault.gpa}`].flat().join(', ');
  if (!ours) throw new HandshakeError(`stage-2 fault ${fault.id}: ${at} is no page that the VMM handed over`);
  const parent = fault.traceparent === undefined ? undefined : parseTraceparent(fault.traceparent);
  return { id: fault.id, ledgerPage: ours.region.firstLedgerPage + ours.page, parent };
}

/** The page by offset, by guest address, or by both where they agree. */
function placeOf({ id, offset, gpa }: Stage2Fault, offered: GuestLayout): PagePlace | undefined {
  const byOffset = offset === undefined ? undefined : offered.atOffset(offset);
  if (gpa === undefined) return byOffset;
  const known = offered.regions.some((region) => region.gpaStart !== undefined);
  if (!known && offset === undefined)
    throw new HandshakeError(`stage-2 fault ${id}: it has a gpa and no offset, and the regions have no gpa_start`);
  // Without gpa_start it is for people.
  if (!known) return byOffset;
  const byGpa = offered.atGpa(gpa);
  if (offset !== undefined && (byGpa?.region !== byOffset?.region || byGpa?.page !== byOffset?.page))
    throw new HandshakeError(`stage-2 fault ${id}: offset ${offset} and gpa ${gpa} are not the same page`);
  return byGpa;
}

/** Undefined where the range is in no region, or is no whole pages. */
export function removedOrder(
  { offset, len }: { readonly offset: number; readonly len: number },
  { offered, layout }: Layouts,
): RemovedOrder | undefined {
  const end = offset + len;
  const place = offered.atOffset(offset);
  const last = offered.atOffset(end - 1);
  const ours = place && inOrder(place, layout);
  // Half a page given back would be a whole page of zeros to the guest.
  if (!place || !last || !ours || !isPageBorder(place, offset) || !isPageBorder(last, end)) return undefined;
  // Regions that follow each other there may not do so here.
  if (offered !== layout && last.region !== place.region) return undefined;
  const first = ours.region.firstLedgerPage + ours.page;
  const count = last.region.firstLedgerPage + last.page - place.region.firstLedgerPage - place.page + 1;
  return { type: 'removed', first, count, offset, len };
}

const isPageBorder = ({ region }: PagePlace, offset: number): boolean =>
  (offset - region.offset) % region.pageSizeBytes === 0;

/** The answer to a stage-2 fault whose page is in place now. */
export function resolvedPage({ id, ledgerPage }: Stage2Page, { offered, layout }: Layouts): ResolvedPage | undefined {
  const ours = layout.atLedgerPage(ledgerPage);
  const place = ours && inOrder(ours, offered);
  if (!place) return undefined;
  const { region, page } = place;
  return { id, offset: region.offset + page * region.pageSizeBytes, len: region.pageSizeBytes };
}
