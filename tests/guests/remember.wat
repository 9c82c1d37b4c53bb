;; Exits with 1 when it finds anything that an earlier run left in memory, a global or a table.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (global $seen (mut i32) (i32.const 0))
  (table $t 1 funcref)
  (elem declare func $mark)
  (func $mark)
  (func (export "_start")
    (if (i32.or
          (i32.or (i32.load (i32.const 60000)) (global.get $seen))
          (i32.eqz (ref.is_null (table.get $t (i32.const 0)))))
      (then (call $exit (i32.const 1))))
    (i32.store (i32.const 60000) (i32.const 1))
    (global.set $seen (i32.const 1))
    (table.set $t (i32.const 0) (ref.func $mark))))
