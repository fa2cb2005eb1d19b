/* The fast engine. Activations are sparse, and so are weights; only what is not zero is touched.
 *
 * 1. Between two layers there is a list of the active inputs: number and value, 3 bytes each.
 * 2. A layer adds, for each active input, its column of weights times its value to the sums of all neurons. A column is
 *    stored as the numbers of the neurons that it is added to and of those it is subtracted from (`add_lists`), or, where
 *    most weights are not zero, as bits, 8 neurons a byte (`add_plane`).
 * 3. The sums that stay above zero after the shift are the next list (`finish`).
 * 4. The first layer's sums over the query are computed once a query and kept; a character adds 21 columns to them. An
 *    n-gram that occurs twice is twice in the list, so that nothing is counted; a bucket is 7 bits of the hash, so that
 *    8 bits of it do.
 *
 * Sums are int16 and wrap. They lie at the start of a page of 256 bytes, so that a neuron's number, doubled, is the low
 * byte of its address: 128 neurons a page, and a second page for more. Cycles are counted in the comments.
 */
#include <avr/io.h>
#include <avr/pgmspace.h>
#include <string.h>
#include "engine.h"
#include "model.h"

struct active {
  uint8_t input;
  int16_t value;
} __attribute__((packed));

/* In .bss itself, which the linker puts before .bss.*: nothing is skipped before a page that begins the memory. */
int16_t sums[MOST_NEURONS] __attribute__((aligned(256), section(".bss"))); /* padded to 8; the logits at the end */
static int16_t query_sums[(FIRST_NEURONS + 3) / 4 * 4];
static struct active list[MOST_ACTIVE];
static uint8_t actives; /* how many of the list; 0 stands for 256 where `any` says that there are some */
static uint8_t any;

#define INLINE static inline __attribute__((always_inline))

/* Copy int16 values to `sums`, 4 at a time: 11 cycles a value from flash, 9 from SRAM. */
INLINE void start_from_flash(const int16_t *bias, uint8_t fours) {
  int16_t *to = sums;
  __asm__ volatile(
      "1:\n .rept 8\n lpm r0, Z+\n st X+, r0\n .endr\n"
      "dec %[fours]\n brne 1b\n"
      : [fours] "+&r"(fours), "+&z"(bias), "+&x"(to)::"r0", "memory");
}

INLINE void start_from_sram(const int16_t *kept, uint8_t fours) {
  int16_t *to = sums;
  __asm__ volatile(
      "1:\n .rept 8\n ld r0, Z+\n st X+, r0\n .endr\n"
      "dec %[fours]\n brne 1b\n"
      : [fours] "+&r"(fours), "+&z"(kept), "+&x"(to)::"r0", "memory");
}

#if USES_LISTS
/* One entry of a list: X is the address of the neuron's sum, whose page is set. The value is a byte where it can be,
 * and then the high byte of the sum is touched only where there is a carry: 10 or 14 cycles, else 13. */
#define NARROW(operation, carry) \
  "lpm r26, Z+\n ld r0, X\n " operation " r0, r20\n st X+, r0\n brcc .+6\n ld r22, X\n " carry " r22\n st X, r22\n"
#define WIDE(operation, with_carry) \
  "lpm r26, Z+\n ld r0, X\n " operation " r0, r20\n st X+, r0\n ld r0, X\n " with_carry " r0, r21\n st X, r0\n"
/* A run of entries, four to a turn. Its head: the number of turns above the 2 bits of the number of entries, which say
 * where the first turn begins. */
#define RUN(entry) \
  "lpm r23, Z+\n mov r24, r23\n lsr r24\n lsr r24\n breq 9f\n" \
  "sbrc r23, 0\n rjmp 5f\n sbrc r23, 1\n rjmp 2f\n" \
  "4:\n" entry "3:\n" entry "2:\n" entry "1:\n" entry \
  "dec r24\n brne 4b\n rjmp 9f\n" \
  "5: sbrc r23, 1\n rjmp 3b\n rjmp 1b\n" \
  "9:\n"

/* Adds the columns of all active inputs to the sums of one page. */
static void add_lists(const uint8_t *const *columns, uint8_t page) {
  const struct active *next = list;
  uint8_t left = actives;
  if (!any) return;
  __asm__ volatile(
      "mov r27, %[page]\n"
      "10: ld r30, Y+\n ld r20, Y+\n ld r21, Y+\n"
      "clr r31\n lsl r30\n rol r31\n add r30, %A[columns]\n adc r31, %B[columns]\n"
      "lpm r0, Z+\n lpm r31, Z\n mov r30, r0\n"
      "tst r21\n breq 11f\n rjmp 12f\n"
      "11:\n" RUN(NARROW("add", "inc")) RUN(NARROW("sub", "dec"))
      "rjmp 13f\n"
      "12:\n" RUN(WIDE("add", "adc")) RUN(WIDE("sub", "sbc"))
      "13: dec %[left]\n breq 14f\n rjmp 10b\n"
      "14:\n"
      : [left] "+&r"(left), "+&y"(next)
      : [columns] "r"(columns), [page] "r"(page)
      : "r0", "r20", "r21", "r22", "r23", "r24", "r26", "r27", "r30", "r31", "memory");
}
#endif

#if USES_PLANES
/* Adds the value of each active input to the sums of the neurons whose bit is set, 8 neurons at a time in registers:
 * 15 cycles an input and byte, and 3 or 4 a bit. `plane` has a byte for each input, then those of the next neurons. */
#define BIT(low, high) "lsr r0\n brcc .+4\n add " low ", r20\n adc " high ", r21\n"
static void add_plane(const uint8_t *plane, uint16_t inputs, uint8_t eights) {
  if (!any) return;
  register const uint8_t *base __asm__("r24") = plane;
  register uint16_t step __asm__("r22") = inputs;
  register uint8_t turns __asm__("r18") = eights;
  __asm__ volatile(
      "push r28\n push r29\n"
      "ldi r26, lo8(%[sums])\n ldi r27, hi8(%[sums])\n"
      "1:\n .irp r, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n ld \\r, X+\n .endr\n"
      "sbiw r26, 16\n"
      "ldi r28, lo8(%[list])\n ldi r29, hi8(%[list])\n lds r19, %[actives]\n"
      "2: ld r30, Y+\n ld r20, Y+\n ld r21, Y+\n"
      "clr r31\n add r30, r24\n adc r31, r25\n lpm r0, Z\n"
      BIT("r2", "r3") BIT("r4", "r5") BIT("r6", "r7") BIT("r8", "r9")
      BIT("r10", "r11") BIT("r12", "r13") BIT("r14", "r15") BIT("r16", "r17")
      "dec r19\n brne 2b\n"
      ".irp r, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n st X+, \\r\n .endr\n"
      "add r24, r22\n adc r25, r23\n"
      "dec r18\n breq 3f\n rjmp 1b\n"
      "3: pop r29\n pop r28\n"
      : "+r"(base), "+r"(turns)
      : "r"(step), [sums] "i"(sums), [list] "i"(list), [actives] "i"(&actives)
      : "r0", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r16", "r17",
        "r19", "r20", "r21", "r26", "r27", "r30", "r31", "memory");
}

static void scale_list(int8_t factor) {
  struct active *at = list;
  if (!any) return;
  uint8_t left = actives;
  do at++->value *= factor;
  while (--left);
}

#if USES_PLANES == 1
/* Weights of one bit are 2 bit - 1: twice the value is added where it is set, the values of all are subtracted. */
static void add_signs(const uint8_t *plane, uint16_t inputs, uint8_t eights) {
  int16_t all = 0;
  const struct active *at = list;
  if (!any) return;
  uint8_t left = actives;
  do all += at++->value;
  while (--left);
  for (uint16_t neuron = 0; neuron < eights * 8; neuron++) sums[neuron] -= all;
  scale_list(2);
  add_plane(plane, inputs, eights);
}

#else
/* Weights of two bits are low - 2 high. */
static void add_planes(const uint8_t *low, const uint8_t *high, uint16_t inputs, uint8_t eights) {
  add_plane(low, inputs, eights);
  scale_list(-2);
  add_plane(high, inputs, eights);
}
#endif
#endif

/* Makes the list of what is positive after the shift: 12 cycles for a neuron that is not, 21 and more for one that is.
 * `shift` is a constant, and the shifts stand in a row. */
INLINE void finish(uint8_t neurons, uint8_t shift) {
  const int16_t *from = sums;
  struct active *to = list;
  uint8_t neuron = 0, low_limit = 1 << shift, high_limit = (1 << shift) >> 8;
  __asm__ volatile(
      "1: ld r20, X+\n ld r21, X+\n cp r20, %[low]\n cpc r21, %[high]\n brlt 2f\n"
      ".rept %[shift]\n lsr r21\n ror r20\n .endr\n"
      "st Z+, %[neuron]\n st Z+, r20\n st Z+, r21\n"
      "2: inc %[neuron]\n cp %[neuron], %[neurons]\n brne 1b\n"
      : [neuron] "+&r"(neuron), "+&x"(from), "+&z"(to)
      : [neurons] "r"(neurons), [low] "r"(low_limit), [high] "r"(high_limit), [shift] "n"(shift)
      : "r20", "r21", "memory");
  any = to != list;
  actives = (uint8_t)((uint8_t *)to - (uint8_t *)list) * 171; /* a third: 3 * 171 is 1 in 8 bits */
}

/* One layer's columns, in the form that model.h gives it. */
#define ADD(number, inputs, outputs) COLUMNS##number(inputs, (outputs + 7) / 8)
#define LISTS(pages, ...) \
  for (uint8_t page = 0; page < sizeof pages / sizeof *pages; page++) add_lists(pages[page], FIRST_PAGE + page)
#define FIRST_PAGE ((uint8_t)((uint16_t)sums >> 8))

static uint8_t hash_on(uint8_t hash, uint8_t byte) { return hash * 31 + byte; }

static void list_bucket(struct active *at, uint8_t input) {
  at->input = input;
  at->value = 1 << INPUT_SHIFT;
}

void engine_query(const uint8_t *query, uint8_t length) {
  GPIOR0 = 1;
  actives = length - 2; /* at most 64 trigrams */
  any = actives != 0;
  for (uint8_t start = 0; start < actives; start++) {
    uint8_t hash = hash_on(hash_on(query[start], query[start + 1]), query[start + 2]);
    list_bucket(&list[start], hash & 127);
  }
  start_from_flash(bias0, (FIRST_NEURONS + 3) / 4);
  ADD(0, INPUTS, FIRST_NEURONS);
  memcpy(query_sums, sums, sizeof query_sums);
  GPIOR0 = 2;
}

static void list_context(const uint8_t recent[RECENT]) {
  struct active *at = list;
  for (uint8_t start = 0; start < RECENT; start++) {
    uint8_t hash = start * 7;
    for (uint8_t end = start; end < RECENT && end < start + 3; end++) {
      hash = hash_on(hash, recent[end]);
      list_bucket(at++, hash | 128);
    }
  }
  actives = at - list;
  any = 1;
}

char engine_next(const uint8_t recent[RECENT]) {
  GPIOR0 = 3;
  list_context(recent);
  start_from_sram(query_sums, (FIRST_NEURONS + 3) / 4);
  ADD(0, INPUTS, FIRST_NEURONS);
#define LAYER(number, inputs, outputs, shift) \
  finish((uint8_t)inputs, shift); \
  start_from_flash(bias##number, (outputs + 3) / 4); \
  ADD(number, inputs, outputs);
  OTHER_LAYERS
#undef LAYER
  uint8_t best = 0;
  for (uint8_t output = 0; output < CLASSES; output++) {
    sums[output] >>= LAST_SHIFT;
    if (sums[output] > sums[best]) best = output;
  }
  GPIOR0 = 4;
  return best == CLASSES - 1 ? 0 : pgm_read_byte(&characters[best]);
}
