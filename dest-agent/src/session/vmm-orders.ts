/** What a message of the VMM asks of the fault lane, and what it is answered. */
import type { AgentMessage, GuestLayout, PagePlace, VmmMessage } from '@pagewake/core';
import type { ToLane } from '../lanes/messages.ts';
import { parseTraceparent } from './traceparent.ts';

/** Undefined where the message names memory that is in no region, or removes what are no whole pages. */
export function laneOrderOf(message: VmmMessage, layout: GuestLayout): ToLane | undefined {
  const place = layout.atOffset(message.offset);
  if (!place) return undefined;
  const first = place.region.firstLedgerPage + place.page;
  if (message.type === 'stage2_fault') {
    const parent = message.traceparent === undefined ? undefined : parseTraceparent(message.traceparent);
    return { type: 'stage2', id: message.id, ledgerPage: first, parent };
  }
  const end = message.offset + message.len;
  const last = layout.atOffset(end - 1);
  // Half a page given back would be a whole page of zeros to the guest.
  if (!last || !isPageBorder(place, message.offset) || !isPageBorder(last, end)) return undefined;
  const count = last.region.firstLedgerPage + last.page - first + 1;
  return { type: 'removed', first, count, offset: message.offset, len: message.len };
}

const isPageBorder = ({ region }: PagePlace, offset: number): boolean =>
  (offset - region.offset) % region.pageSizeBytes === 0;

/** The answer to a stage-2 fault whose page is in place now. */
export function resolvedAnswer(id: number, ledgerPage: number, layout: GuestLayout): AgentMessage | undefined {
  const place = layout.atLedgerPage(ledgerPage);
  if (!place) return undefined;
  const { region, page } = place;
  return { type: 'resolved', id, offset: region.offset + page * region.pageSizeBytes, len: region.pageSizeBytes };
}
