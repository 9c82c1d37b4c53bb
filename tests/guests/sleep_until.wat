;; Sleeps until the end of time: two absolute waits, on the wall clock and the monotonic one.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i64.store (i32.const 24) (i64.const -1))
    (i32.store16 (i32.const 40) (i32.const 1))           ;; absolute
    (i32.store (i32.const 64) (i32.const 1))             ;; clock: monotonic
    (i64.store (i32.const 72) (i64.const 0x7fffffffffffffff))
    (i32.store16 (i32.const 88) (i32.const 1))
    (drop (call $poll (i32.const 0) (i32.const 256) (i32.const 2) (i32.const 512)))))
