; Which state of the generator x' = 1103515245 x + 12345 (mod 2^32) is followed by 0xdeadbeef?
; The factor is odd, so there is exactly one.
(set-logic QF_BV)
(set-option :produce-models true)
(declare-const x (_ BitVec 32))
(assert (= (bvadd (bvmul x #x41c64e6d) #x00003039) #xdeadbeef))
(check-sat)
(get-model)
