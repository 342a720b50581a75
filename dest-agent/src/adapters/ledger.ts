/** The page ledger and the clock of the native core, under the names that the lanes use. */
export {
  monotonicMs,
  PAGE,
  PageLedger,
  setThreadNice,
  UFFD_EVENT,
  UFFD_EVENT_BATCH,
  UFFD_EVENT_FIELDS,
  UFFD_FAULT_FLAG,
} from '@pagewake/native';
