/* Atomics whose names carry the memory order, so that a reader sees at each use what is promised. */
#ifndef WP_ATOMIC_H
#define WP_ATOMIC_H

#include <stdatomic.h>

#define wp_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define wp_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define wp_load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)

#define wp_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define wp_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define wp_store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)

#define wp_exchange_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define wp_fetch_or_seq_cst(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define wp_fetch_or_acq_rel(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)
#define wp_fetch_and_seq_cst(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define wp_fetch_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define wp_fetch_add_seq_cst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)

/* On failure `*expected` receives what was there. */
#define wp_cas_seq_cst(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst, memory_order_seq_cst)
#define wp_cas_acq_rel(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)

#endif
