;; Sleeps for an hour in one `poll_oneoff`: a relative wait on the monotonic clock.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store8 (i32.const 8) (i32.const 0))             ;; kind: clock
    (i32.store (i32.const 16) (i32.const 1))             ;; clock: monotonic
    (i64.store (i32.const 24) (i64.const 3600000000000)) ;; nanoseconds
    (drop (call $poll (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 512)))))
