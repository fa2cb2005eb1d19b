/* The network on the chip: a query goes in once, then characters come out one by one.
 *
 * Two engines have this interface: engine.c, the fast one, and plain.c beside the sketch, the straightforward loop that
 * it is compared with. Text is bytes in lower case.
 */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOST_QUERY 64  /* bytes of a query that count */
#define RECENT 8       /* bytes of the answer so far that count */
#define MOST_ANSWER 24 /* characters after which an answer is cut */

/* Computes what depends on the query alone: `query` is ` text `, with its padding, `length` bytes long in all. */
void engine_query(const uint8_t *query, uint8_t length);

/* The next character of the answer, or 0 at its end; `recent` holds the last characters, spaces before them. */
char engine_next(const uint8_t recent[RECENT]);

#ifdef __cplusplus
}
#endif
