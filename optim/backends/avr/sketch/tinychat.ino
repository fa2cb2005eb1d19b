/* Tinychat on an Arduino UNO: a line in over the serial port, 115200 baud, the answer out, and a newline.
 *
 * A TAB in the line separates the query from an answer so far, which is continued. The first 64 bytes of a query count,
 * up to a NUL; of the answer so far the last 8. Bytes that come while an answer is computed are lost: wait for its end.
 * A line of which bytes were lost is refused. The watchdog resets a chip that hangs for 2 seconds.
 *
 * The serial port is driven by its registers, without the Arduino library, so that the binary measured is this one.
 */
#include <avr/io.h>
#include <avr/pgmspace.h>
#include <avr/wdt.h>
#include <string.h>
#include "engine.h"

static uint8_t query[MOST_QUERY + 2]; /* with a space on either side */
static uint8_t recent[RECENT];

static uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte; }

static void remember(uint8_t byte) {
  memmove(recent, recent + 1, RECENT - 1);
  recent[RECENT - 1] = lower(byte);
}

static void send(char character) {
  while (!(UCSR0A & _BV(UDRE0))) continue;
  UDR0 = character;
}

static void send_from_flash(const char *text) {
  while (char character = pgm_read_byte(text++)) send(character);
}

/* Waits for a byte; sets `lost` where one before it was overwritten or garbled. */
static uint8_t receive(bool *lost) {
  while (!(UCSR0A & _BV(RXC0))) wdt_reset();
  if (UCSR0A & (_BV(DOR0) | _BV(FE0))) *lost = true;
  return UDR0;
}

/* Reads a line into `query` and `recent`; returns the length of the padded query, or 0 for a line with lost bytes. */
static uint8_t read_line(void) {
  uint8_t length = 1;
  bool ended = false, answered = false, lost = false;
  query[0] = ' ';
  memset(recent, ' ', RECENT);
  for (;;) {
    uint8_t byte = receive(&lost);
    if (byte == '\n') break;
    if (byte == '\r') continue;
    if (answered) {
      remember(byte);
    } else if (byte == '\t') {
      answered = true;
    } else if (byte == 0) {
      ended = true;
    } else if (!ended && length <= MOST_QUERY) {
      query[length++] = lower(byte);
    }
  }
  query[length++] = ' ';
  return lost ? 0 : length;
}

void setup() {
  wdt_enable(WDTO_2S);
  UCSR0A = _BV(U2X0);
  UBRR0 = F_CPU / 8 / 115200 - 1;
  UCSR0C = _BV(UCSZ01) | _BV(UCSZ00); /* 8 data bits, no parity, 1 stop bit */
  UCSR0B = _BV(RXEN0) | _BV(TXEN0);
}

void loop() {
  uint8_t length = read_line();
  if (length == 0) {
    send_from_flash(PSTR("?bytes of this line were lost: wait for the answer to the line before\n"));
    return;
  }
  engine_query(query, length);
  for (uint8_t written = 0; written < MOST_ANSWER; written++) {
    wdt_reset();
    char character = engine_next(recent);
    if (character == 0) break;
    send(character);
    remember(character);
  }
  send('\n');
}
