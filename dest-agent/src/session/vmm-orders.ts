/** What a message of the VMM asks of the fault lane, and what it is answered. */
import { inOrder, type AgentMessage, type GuestLayout, type PagePlace, type VmmMessage } from '@pagewake/core';
import type { ToLane } from '../lanes/messages.ts';
import { parseTraceparent } from './traceparent.ts';

/** One VM's regions, in the VMM's order and in ours: offsets on its channel are of its own. */
export interface Layouts {
  readonly offered: GuestLayout;
  readonly layout: GuestLayout;
}

/** Undefined where the message names memory that is in no region, or removes what are no whole pages. */
export function laneOrderOf(message: VmmMessage, { offered, layout }: Layouts): ToLane | undefined {
  const place = offered.atOffset(message.offset);
  const ours = place && inOrder(place, layout);
  if (!place || !ours) return undefined;
  const first = ours.region.firstLedgerPage + ours.page;
  if (message.type === 'stage2_fault') {
    const parent = message.traceparent === undefined ? undefined : parseTraceparent(message.traceparent);
    return { type: 'stage2', id: message.id, ledgerPage: first, parent };
  }
  const end = message.offset + message.len;
  const last = offered.atOffset(end - 1);
  // Half a page given back would be a whole page of zeros to the guest.
  if (!last || !isPageBorder(place, message.offset) || !isPageBorder(last, end)) return undefined;
  // Regions that follow each other there may not do so here.
  if (offered !== layout && last.region !== place.region) return undefined;
  const count = last.region.firstLedgerPage + last.page - place.region.firstLedgerPage - place.page + 1;
  return { type: 'removed', first, count, offset: message.offset, len: message.len };
}

const isPageBorder = ({ region }: PagePlace, offset: number): boolean =>
  (offset - region.offset) % region.pageSizeBytes === 0;

/** The answer to a stage-2 fault whose page is in place now. */
export function resolvedAnswer(id: number, ledgerPage: number, { offered, layout }: Layouts): AgentMessage | undefined {
  const ours = layout.atLedgerPage(ledgerPage);
  const place = ours && inOrder(ours, offered);
  if (!place) return undefined;
  const { region, page } = place;
  return { type: 'resolved', id, offset: region.offset + page * region.pageSizeBytes, len: region.pageSizeBytes };
}
