;; Writes `a` to standard output and `b` to standard error by turns, for ever.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (memory.fill (i32.const 1024) (i32.const 97) (i32.const 1000))
    (memory.fill (i32.const 4096) (i32.const 98) (i32.const 1000))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 1000))
    (i32.store (i32.const 8) (i32.const 4096))
    (i32.store (i32.const 12) (i32.const 1000))
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
      (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 64)))
      (br $again))))
