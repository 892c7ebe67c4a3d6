package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// What Argo CD opens for a script that isn't told otherwise: no string, math, io, debug or coroutine.
var libraries = []struct {
	name string
	open lua.LGFunction
}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}}

// argo does what Argo CD's util/lua does with a health script: a second at most, and the object as the global `obj`.
func argo(script string, raw json.RawMessage) (verdict, error) {
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return verdict{}, err
	}
	// Decided before any script is asked.
	if metadata, _ := object["metadata"].(map[string]any); metadata["deletionTimestamp"] != nil {
		return verdict{Status: "Progressing", Message: "Pending deletion"}, nil
	}
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	for _, library := range libraries {
		call := lua.P{Fn: vm.NewFunction(library.open), Protect: true}
		if err := vm.CallByParam(call, lua.LString(library.name)); err != nil {
			return verdict{}, err
		}
	}
	vm.PreloadModule(lua.OsLibName, clock)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	vm.SetContext(ctx)
	vm.SetGlobal("obj", value(vm, object))
	if err := vm.DoString(script); err != nil {
		return verdict{}, err
	}
	table, ok := vm.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the script returns a %s, not a table", vm.Get(-1).Type())
	}
	said := verdict{Status: table.RawGetString("status").String(), Message: table.RawGetString("message").String()}
	switch said.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return said, nil
	}
	return verdict{}, fmt.Errorf("Argo CD doesn't know the status %q", said.Status)
}

// clock is `require("os")`, of which two functions are left.
func clock(vm *lua.LState) int {
	vm.Push(vm.SetFuncs(vm.NewTable(), map[string]lua.LGFunction{
		"time": func(vm *lua.LState) int { vm.Push(lua.LNumber(time.Now().Unix())); return 1 },
		"date": func(vm *lua.LState) int { vm.Push(lua.LString(time.Now().Format(time.RFC3339))); return 1 },
	}))
	return 1
}

func value(vm *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := vm.CreateTable(len(from), 0)
		for _, element := range from {
			table.Append(value(vm, element))
		}
		return table
	case map[string]any:
		table := vm.CreateTable(0, len(from))
		for key, element := range from {
			table.RawSetString(key, value(vm, element))
		}
		return table
	}
	return lua.LNil
}
