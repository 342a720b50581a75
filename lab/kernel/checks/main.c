// usage: kernel-checks [--shadow] [SECONDS of stress]
#include "checks.h"

bool shadow_paging;

int main(int argc, char **argv) {
  enum { DEADLINE_S = 120 };
  double stress_s = 5;
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int n = 1; n < argc; n++)
    if (strcmp(argv[n], "--shadow") == 0) shadow_paging = true;
    else stress_s = atof(argv[n]);
  start_deadline(DEADLINE_S);
  make_machine();
  start_uffd_thread();
  check_classes();
  check_rearming();
  check_race();
  check_emulator();
  check_write();
  check_userfaultfd();
  check_flags();
  check_slots();
  check_other_memory();
  check_stress(stress_s);
  measure_populate();
  return report();
}
