;; Makes the file `begun` in the first directory, then does what the first byte of its input says:
;; `l` loops, `h` spins in host calls, `s` sleeps for an hour, anything else ends.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "begun")
  (func (export "_start") (local $does i32)
    ;; One byte of standard input into 100.
    (i32.store (i32.const 8) (i32.const 100))
    (i32.store (i32.const 12) (i32.const 1))
    (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
    (local.set $does (i32.load8_u (i32.const 100)))
    ;; Create, with the right to write.
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 1)
          (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32))
      (then unreachable))
    (if (i32.eq (local.get $does) (i32.const 0x6c))
      (then (loop $again (br $again))))
    (if (i32.eq (local.get $does) (i32.const 0x68))
      (then (loop $again (drop (call $yield)) (br $again))))
    (if (i32.eq (local.get $does) (i32.const 0x73))
      (then
        (i32.store8 (i32.const 208) (i32.const 0))             ;; kind: clock
        (i32.store (i32.const 216) (i32.const 1))              ;; clock: monotonic
        (i64.store (i32.const 224) (i64.const 3600000000000))  ;; nanoseconds
        (drop (call $poll (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400)))))))
