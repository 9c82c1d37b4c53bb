;; A component that calls tools of its host, with a name and arguments that it is given.
(component
  (import "hyperlight:sandbox/tools" (instance $tools
    (export "dispatch" (func (param "name" string) (param "args-json" string) (result (result string (error string)))))))
  (core module $libc
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
        (then (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))
                          (i32.const -1))
          (then (unreachable)))))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $dispatch
    (canon lower (func $tools "dispatch") (memory $memory) (realloc $realloc)))
  (core instance $host (export "dispatch" (func $dispatch)))
  (core module $m
    (import "host" "dispatch" (func $dispatch (param i32 i32 i32 i32 i32)))
    (func $ask (export "ask") (param i32 i32 i32 i32) (result i32)
      (call $dispatch (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 16))
      (i32.const 16))
    ;; The second of two calls.
    (func (export "twice") (param i32 i32 i32 i32) (result i32)
      (drop (call $ask (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
      (call $ask (local.get 0) (local.get 1) (local.get 2) (local.get 3))))
  (core instance $i (instantiate $m (with "host" (instance $host))))
  (func (export "ask") (param "name" string) (param "args" string) (result (result string (error string)))
    (canon lift (core func $i "ask") (memory $memory) (realloc $realloc)))
  (func (export "twice") (param "name" string) (param "args" string) (result (result string (error string)))
    (canon lift (core func $i "twice") (memory $memory) (realloc $realloc))))
