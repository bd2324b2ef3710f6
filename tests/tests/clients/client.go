// Connects to ADDRESS so often, with at most so many under way, and says what came of each, and how
// many times connect was called: the library tries again by itself.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	target := os.Args[1]
	count, _ := strconv.Atoi(os.Args[2])
	most, _ := strconv.Atoi(os.Args[3])
	var attempts, begun int64
	dialer := net.Dialer{
		Timeout: time.Minute,
		Control: func(_, _ string, _ syscall.RawConn) error {
			atomic.AddInt64(&attempts, 1)
			return nil
		},
	}
	var group sync.WaitGroup
	for i := 0; i < most; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for atomic.AddInt64(&begun, 1) <= int64(count) {
				conn, err := dialer.Dial("tcp4", target)
				var errno syscall.Errno
				if err == nil {
					conn.Close()
					fmt.Println("ok")
				} else if errors.As(err, &errno) {
					fmt.Println(int(errno))
				} else {
					fmt.Println(err)
				}
			}
		}()
	}
	group.Wait()
	fmt.Println("connects", attempts)
}
