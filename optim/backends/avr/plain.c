/* The straightforward engine: counts in all inputs, every layer a loop over all its 2-bit weights, nothing kept. */
#include <avr/io.h>
#include <avr/pgmspace.h>
#include <string.h>
#include "engine.h"
#include "model.h"

int16_t sums[MOST_NEURONS]; /* of the layer at hand; the logits at the end */
static int16_t values[MOST_NEURONS]; /* what is beyond a layer's inputs has weights of 0 */
static uint8_t query_counts[128];

static void count(uint8_t *counts, const uint8_t *gram, uint8_t length, uint16_t hash) {
  while (length--) hash = hash * 31 + *gram++;
  counts[hash % 128]++;
}

/* sums = weights * values + bias, shifted. Codes: 0, 1, -2, -1; the first of a byte in its lowest bits. */
static void layer(const uint8_t *packed, const int16_t *bias, uint16_t inputs, uint16_t outputs, uint8_t shift) {
  for (uint16_t output = 0; output < outputs; output++) {
    int16_t sum = pgm_read_word(&bias[output]);
    const int16_t *value = values;
    for (uint16_t input = 0; input < inputs; input += 4) {
      uint8_t codes = pgm_read_byte(packed++);
#define WEIGHT(place) \
  if (codes & (1 << 2 * place)) sum += value[place]; \
  if (codes & (2 << 2 * place)) sum -= 2 * value[place];
      WEIGHT(0) WEIGHT(1) WEIGHT(2) WEIGHT(3)
      value += 4;
    }
    sums[output] = sum >> shift;
  }
}

static void rectify(uint16_t outputs) {
  for (uint16_t output = 0; output < outputs; output++) values[output] = sums[output] > 0 ? sums[output] : 0;
}

void engine_query(const uint8_t *query, uint8_t length) {
  GPIOR0 = 1;
  memset(query_counts, 0, sizeof query_counts);
  for (uint8_t start = 0; start + 3 <= length; start++) count(query_counts, query + start, 3, 0);
  GPIOR0 = 2;
}

char engine_next(const uint8_t recent[RECENT]) {
  GPIOR0 = 3;
  uint8_t counts[128] = {0};
  for (uint8_t start = 0; start < RECENT; start++)
    for (uint8_t length = 1; length <= 3 && start + length <= RECENT; length++)
      count(counts, recent + start, length, start * 7);
  for (uint8_t bucket = 0; bucket < 128; bucket++) {
    values[bucket] = (int16_t)query_counts[bucket] << INPUT_SHIFT;
    values[128 + bucket] = (int16_t)counts[bucket] << INPUT_SHIFT;
  }
#define LAYER(number, inputs, outputs, shift) \
  layer(weights##number, bias##number, inputs, outputs, shift); \
  rectify(outputs);
  HIDDEN_LAYERS
#undef LAYER
#define LAYER(number, inputs, outputs, shift) layer(weights##number, bias##number, inputs, outputs, shift);
  LAST_LAYER
#undef LAYER
  uint8_t best = 0;
  for (uint8_t output = 1; output < CLASSES; output++)
    if (sums[output] > sums[best]) best = output;
  GPIOR0 = 4;
  return best == CLASSES - 1 ? 0 : pgm_read_byte(&characters[best]);
}
