;; Spins in host calls, which cost next to no fuel.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $again
      (drop (call $time (i32.const 0) (i64.const 0) (i32.const 0)))
      (drop (call $yield))
      (drop (call $random (i32.const 0) (i32.const 65536)))
      (br $again))))
