;; Waits and draws: a pollable of an hour, many of them, random bytes, handles without end.
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))
    (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
  (alias export $poll "pollable" (type $p))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "pollable" (type $p2 (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p2))))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (core module $store
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (if (i32.gt_u (global.get $top) (i32.const 262144)) (then (unreachable)))
      (local.get $at)))
  (core instance $s (instantiate $store))
  (alias core export $s "memory" (core memory $memory))
  (alias core export $s "realloc" (core func $realloc))

  (type $own (resource (rep i32)))
  (core func $new (canon resource.new $own))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $poll-all (canon lower (func $poll "poll") (memory $memory) (realloc $realloc)))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $bytes (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))
  (core module $m
    (import "h" "memory" (memory 4))
    (import "h" "block" (func $block (param i32)))
    (import "h" "poll" (func $poll (param i32 i32 i32)))
    (import "h" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "h" "bytes" (func $bytes (param i64 i32)))
    (import "h" "new" (func $new (param i32) (result i32)))
    (func (export "sleep") (param $ns i64) (call $block (call $subscribe (local.get $ns))))
    (func (export "naps")
      (loop (call $block (call $subscribe (i64.const 1000000))) (br 0)))
    ;; One list that names the same pollable this many times.
    (func (export "poll") (param $count i32) (param $ns i64)
      (local $p i32) (local $at i32)
      (local.set $p (call $subscribe (local.get $ns)))
      (loop $again
        (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $at) (i32.const 4))) (local.get $p))
        (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $count))))
      (call $poll (i32.const 4096) (local.get $count) (i32.const 64)))
    (func (export "pollables") (param $count i32)
      (loop $again
        (drop (call $subscribe (i64.const 1)))
        (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
    (func (export "handles") (param $count i32)
      (loop $again
        (drop (call $new (i32.const 1)))
        (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
    (func (export "random") (param $size i64)
      (call $bytes (local.get $size) (i32.const 64))))
  (core instance $i (instantiate $m (with "h" (instance
    (export "memory" (memory $memory)) (export "block" (func $block)) (export "poll" (func $poll-all))
    (export "subscribe" (func $subscribe)) (export "bytes" (func $bytes)) (export "new" (func $new))))))
  (func (export "sleep") (param "ns" u64) (canon lift (core func $i "sleep")))
  (func (export "naps") (canon lift (core func $i "naps")))
  (func (export "poll") (param "count" u32) (param "ns" u64) (canon lift (core func $i "poll")))
  (func (export "pollables") (param "count" u32) (canon lift (core func $i "pollables")))
  (func (export "handles") (param "count" u32) (canon lift (core func $i "handles")))
  (func (export "random") (param "size" u64) (canon lift (core func $i "random"))))
