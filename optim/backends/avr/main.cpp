/* What the Arduino library does around a sketch, and no more, with the two things that a measurement needs: the stack
 * is painted before anything uses it, and GPIOR2 counts starts, so that a reset by the watchdog is seen.
 */
#include <avr/io.h>
#include <avr/wdt.h>

void setup();
void loop();



/* Before the stack is set up: no call, no variable in memory. */
__attribute__((naked, used, section(".init1"))) static void paint() {
  __asm__ volatile(
      "ldi r30, lo8(_end)\n ldi r31, hi8(_end)\n ldi r24, 0xC5\n ldi r25, hi8(%0 + 1)\n"
      "1: st Z+, r24\n cpi r30, lo8(%0 + 1)\n cpc r31, r25\n brne 1b\n" ::"i"(RAMEND));
}

int main() {
  MCUSR = 0; /* else a reset by the watchdog would leave it running, and reset again */
  wdt_disable();
  GPIOR2++;
  setup();
  for (;;) loop();
}
