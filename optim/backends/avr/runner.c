/* Runs a firmware in simavr and answers requests, one a line on stdin, one a line on stdout.
 *
 *   runner FIRMWARE.elf MCU SUMS COUNT END       addresses of the logits and of the end of the static variables
 *   request: MAXIMUM-CYCLES MOST HEX-BYTES       bytes for the serial port; it ends with a newline from the chip, or
 *                                                after so many characters, with which the chip is started anew
 *   reply:   the bytes of the answer in hex, or - ; "timeout" or "crash" where there is no end to it; starts of the
 *            chip so far; whether the watchdog is on; the most bytes of stack so far; cycles of the query; then for each
 *            character its cycles and, after a colon, the logits at its end
 *
 * Cycles are those between two writes to GPIOR0: 1 and 2 around the query, 3 and 4 around each character.
 */
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPIOR0 = 0x3e, GPIOR2 = 0x4b, WDTCSR = 0x60, WDE = 1 << 3, PAINT = 0xC5, MOST = 1024 };

static avr_t *avr;
static unsigned starts, sums, count, end, most_stack;
static int ready = 1, finished, characters, most;
static unsigned char answer[MOST], line[4 * MOST];
static int answered;
static avr_cycle_count_t begun, query_cycles, cycles[MOST];
static int16_t logits[MOST][256];

static void on_mark(avr_t *a, avr_io_addr_t address, uint8_t value, void *unused) {
  (void)unused;
  a->data[address] = value;
  if (value == 1 || value == 3) begun = a->cycle;
  if (value == 2) query_cycles = a->cycle - begun;
  if (value == 4 && characters < MOST) {
    cycles[characters] = a->cycle - begun;
    memcpy(logits[characters++], a->data + sums, 2 * count);
    if (characters == most) finished = 1;
  }
}

static void on_start(avr_t *a, avr_io_addr_t address, uint8_t value, void *unused) {
  (void)unused;
  a->data[address] = value;
  starts++;
}

static void on_output(avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)unused;
  if (value == '\n') finished = 1;
  else if (answered < MOST) answer[answered++] = value;
}

static void on_ready(avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)value, (void)unused;
  ready = 1;
}

static void on_full(avr_irq_t *irq, uint32_t value, void *unused) {
  (void)irq, (void)value, (void)unused;
  ready = 0;
}

static unsigned stack_bytes(void) {
  unsigned lowest = end;
  while (lowest <= avr->ramend && avr->data[lowest] == PAINT) lowest++;
  if (most_stack < avr->ramend + 1 - lowest) most_stack = avr->ramend + 1 - lowest;
  return most_stack;
}

static int listening(void) { /* runs the chip until it listens */
  avr_cycle_count_t until = avr->cycle + 200000;
  int state = cpu_Running;
  while (avr->cycle < until && state == cpu_Running) state = avr_run(avr);
  return state;
}

static void silent(avr_t *a, const int level, const char *format, va_list arguments) {
  (void)a, (void)level, (void)format, (void)arguments;
}

int main(int argc, char **argv) {
  elf_firmware_t firmware = {0};
  if (argc != 6) return 2;
  avr_global_logger_set(silent);
  if (elf_read_firmware(argv[1], &firmware) != 0 || !(avr = avr_make_mcu_by_name(argv[2]))) return 3;
  sums = strtoul(argv[3], NULL, 0), count = strtoul(argv[4], NULL, 0), end = strtoul(argv[5], NULL, 0);
  avr_init(avr);
  avr->frequency = 16000000;
  avr_load_firmware(avr, &firmware);
  avr_register_io_write(avr, GPIOR0, on_mark, NULL);
  avr_register_io_write(avr, GPIOR2, on_start, NULL);
  uint32_t flags = 0; /* without simavr's console and its naps */
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_t *input = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_output, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), on_ready, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), on_full, NULL);
  int state = listening();
  while (fgets((char *)line, sizeof line, stdin)) {
    char *hex;
    avr_cycle_count_t limit = avr->cycle + strtoull((char *)line, &hex, 10), next = avr->cycle;
    most = strtoul(hex, &hex, 10);
    while (*hex == ' ') hex++;
    finished = answered = characters = 0;
    query_cycles = 0;
    while (!finished && avr->cycle < limit && state != cpu_Done && state != cpu_Crashed) {
      if (ready && *hex >= '0' && avr->cycle >= next) { /* a byte takes 10 bits at 115,200 baud */
        unsigned byte;
        sscanf(hex, "%2x", &byte);
        hex += 2;
        next = avr->cycle + avr->frequency / 11520;
        avr_raise_irq(input, byte);
      }
      state = avr_run(avr);
    }
    if (answered == 0) printf("-");
    for (int i = 0; i < answered; i++) printf("%02x", answer[i]);
    printf(" %s", finished ? "answered" : state == cpu_Crashed || state == cpu_Done ? "crash" : "timeout");
    printf(" %u %d %u %llu", starts, (avr->data[WDTCSR] & WDE) != 0, stack_bytes(), (unsigned long long)query_cycles);
    for (int i = 0; i < characters; i++) {
      printf(" %llu:", (unsigned long long)cycles[i]);
      for (unsigned j = 0; j < count; j++) printf(j ? ",%d" : "%d", logits[i][j]);
    }
    printf("\n");
    fflush(stdout);
    if (finished && most && characters == most) {
      avr_reset(avr);
      ready = 1;
      state = listening();
      starts--;
    }
  }
  return 0;
}
